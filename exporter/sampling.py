"""Memory over time, read a hundred times a second: of this process by a thread, of another one from outside.

For what the kernel keeps no high-water mark of: the anonymous part, and the curve. Where a mark is kept, it is the
truth (`exporter.memory`): a sample misses what comes and goes between two of them.
"""

import subprocess
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from exporter.memory import Usage, UsageReader

__all__ = ["INTERVAL_S", "AnonymousPeak", "Sample", "watch_process"]

INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of a process at one moment of `time.monotonic()`, which all processes of a machine share."""

    at_s: float
    usage: Usage


def watch_process(process: subprocess.Popen[bytes], time_limit_s: float) -> list[Sample]:
    """Sample a process until it has ended or its time is up; in the latter case it is running still."""
    samples: list[Sample] = []
    deadline = time.monotonic() + time_limit_s
    reader = UsageReader(process.pid)
    try:
        while process.poll() is None and time.monotonic() < deadline:
            usage = reader.read()
            if usage is not None:
                samples.append(Sample(time.monotonic(), usage))
            time.sleep(INTERVAL_S)
    finally:
        reader.close()
    return samples


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
