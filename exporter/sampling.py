"""Memory over time, read a hundred times a second: of this process by a thread, of another one from outside.

For what the kernel keeps no high-water mark of: the anonymous part, and the curve. Where a mark is kept, it is the
truth (`exporter.memory`): a sample misses what comes and goes between two of them.
"""

import threading
from types import TracebackType
from typing import Self

from exporter.memory import UsageReader

__all__ = ["INTERVAL_S", "AnonymousPeak"]

INTERVAL_S = 0.01


class AnonymousPeak:
    """Watches the anonymous memory of this process while its body runs.

    The thread that does so lives as long as the body. It needs Python's lock for two microseconds a sample; C code
    that keeps the lock for longer than the interval delays the next sample until it lets go.
    """

    def __init__(self) -> None:
        # The highest of all samples, the first at the start and the last at the end; None where none could be read.
        self.peak_bytes: int | None = None
        self.start_bytes: int | None = None
        self._reader: UsageReader | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._reader = UsageReader()
        except OSError:
            return self
        thread = threading.Thread(target=self._watch, args=(self._reader,), name="memory", daemon=True)
        self._sample(self._reader)
        self.start_bytes = self.peak_bytes
        try:
            thread.start()
        except RuntimeError:
            # No more threads are allowed; the peak stays unknown.
            self.peak_bytes = None
            self._reader.close()
        else:
            self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is None or self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._sample(self._reader)
        self._reader.close()

    def _watch(self, reader: UsageReader) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._sample(reader)

    def _sample(self, reader: UsageReader) -> None:
        usage = reader.read()
        if usage is not None:
            self.peak_bytes = max(self.peak_bytes or 0, usage.anon_bytes)
