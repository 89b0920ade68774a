"""What an operator's signals do to a batch: the first one an orderly stop, another one a stop at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from exporter.errors import ExitCode

__all__ = ["Interruption", "Stopped"]

_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HUNG_UP,
}
# From the second signal to our end, whatever we are at.
_PATIENCE_S = 2.0


class Stopped(BaseException):
    """A signal reached us; like Ctrl-C, it must pass every `except Exception`."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code.name)
        self.code = code


class Interruption:
    """Receives SIGINT, SIGTERM and SIGHUP while its body runs; those that were ignored before still are.

    The first signal raises `Stopped`, or within `deferred` only sets `code`: publication must not be torn apart.
    The second one calls `on_second`, and two seconds later ends the process if it has not come to its end by then.

    Args:
        on_second: Called from the signal's handler, in the main thread.
    """

    def __init__(self, on_second: Callable[[], None]) -> None:
        self.code: ExitCode | None = None
        self._on_second = on_second
        self._is_deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _CODES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the body a signal does nothing but set `code`, for the body to look at."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the body, itself within `deferred`, the first signal raises; one that came before does so at once.

        Raises:
            Stopped: In the body.
        """
        self._is_deferred = False
        try:
            if self.code is not None:
                raise Stopped(self.code)
            yield
        finally:
            self._is_deferred = True

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.code is None:
            self.code = _CODES[signal.Signals(number)]
            if not self._is_deferred:
                raise Stopped(self.code)
            return
        self._on_second()
        threading.Timer(_PATIENCE_S, os._exit, [int(self.code)]).start()
