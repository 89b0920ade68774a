"""Calls something that may hang, and waits only so long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from exporter.errors import SyncError

__all__ = ["Budget", "call_bounded"]

T = TypeVar("T")

_LATE = "MLflow did not answer in time (tracking.budget_s)"


class Budget:
    """How long a service may keep us waiting; it runs from when it is made.

    Args:
        seconds: Infinity is allowed.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._is_given_up = False
        self._lock = threading.Lock()

    @property
    def left_s(self) -> float:
        return 0.0 if self._is_given_up else self._deadline - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Allow for work that takes its time however quick the service is."""
        self._deadline += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something else inside of it, for which the service is not to blame."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.extend(time.monotonic() - begin)

    def give_up(self) -> None:
        """Wait no more, for good; returns when nothing is written in `waited_for` any more."""
        with self._lock:
            self._is_given_up = True

    def require_left(self) -> None:
        """Ask before each request that changes something.

        Raises:
            SyncError: The time is up.
        """
        if self.left_s <= 0:
            raise SyncError(_LATE)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Write a file inside of it: whoever waits still holds the locks, and goes on waiting until it is written.

        Raises:
            SyncError: Nobody waits any more, so that others may be writing there by now.
        """
        with self._lock:
            if self._is_given_up:
                raise SyncError(_LATE)
            yield


def call_bounded(function: Callable[[], T], budget: Budget, name: str) -> T:
    """Call a function in a thread of its own and wait for it, as long as the budget says, which may grow meanwhile.

    A thread cannot be ended: one that is late goes on until it asks the budget (`require_left`, `waited_for`), which it
    has to do before each thing that it changes, because the caller lets go of its locks. What it has asked a service
    for by then may still be done, so the function has to be one that can be repeated.

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
    if thread.is_alive():
        budget.give_up()
    if returned:
        return returned[0]
    if raised:
        if isinstance(raised[0], SyncError):
            raise raised[0]
        raise SyncError(f"{type(raised[0]).__name__}: {raised[0]}") from raised[0]
    raise SyncError(f"{name} did not answer in time (tracking.budget_s)")
