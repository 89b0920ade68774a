"""Calls something that may hang, and waits only so long."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from exporter.errors import SyncError

__all__ = ["Budget", "call_bounded"]

T = TypeVar("T")


class Budget:
    """How long a service may keep us waiting; it runs from when it is made.

    Args:
        seconds: Infinity is allowed.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Allow for work that takes its time however quick the service is."""
        self._deadline += seconds


def call_bounded(function: Callable[[], T], budget: Budget, name: str) -> T:
    """Call a function in a thread of its own and wait for it, as long as the budget says, which may grow meanwhile.

    A thread cannot be ended: one that is late goes on until the process ends, or until it asks the budget itself.
    So the function has to be one that can be repeated.

    Args:
        function: What to call.
        budget: How long to wait.
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
    while thread.is_alive() and (left := budget.left_s) > 0:
        thread.join(min(left, threading.TIMEOUT_MAX))
    if returned:
        return returned[0]
    if raised:
        if isinstance(raised[0], SyncError):
            raise raised[0]
        raise SyncError(f"{type(raised[0]).__name__}: {raised[0]}") from raised[0]
    raise SyncError(f"{name} did not answer in time (tracking.budget_s)")
