"""Calls something that may hang, and waits only so long."""

import threading
from collections.abc import Callable
from typing import TypeVar

from exporter.errors import SyncError

__all__ = ["call_bounded"]

T = TypeVar("T")


def call_bounded(function: Callable[[], T], budget_s: float, name: str) -> T:
    """Call a function in a thread of its own and wait for it.

    A thread cannot be ended: one that is late goes on until the process ends, which is why the function has to be
    one that can be repeated.

    Args:
        function: What to call.
        budget_s: How long to wait.
        name: Of the service, for the message.

    Raises:
        SyncError: It took longer, or raised something.
    """
    returned: list[T] = []
    raised: list[Exception] = []

    def call() -> None:
        try:
            returned.append(function())
        except Exception as error:  # noqa: BLE001  (raised again in the caller's thread)
            raised.append(error)

    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(max(0.0, budget_s))
    if returned:
        return returned[0]
    if raised:
        if isinstance(raised[0], SyncError):
            raise raised[0]
        raise SyncError(f"{type(raised[0]).__name__}: {raised[0]}") from raised[0]
    raise SyncError(f"{name} did not answer in time (tracking.budget_s)")
