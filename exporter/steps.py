"""Runs a step: its time, its peak memory, and the one place where an exception becomes a `Failure`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporter import memory
from exporter.failures import describe_failure
from exporter.result import Failure, Step, StepRecord
from exporter.sampling import AnonymousPeak

__all__ = ["StepFailed", "StepRecorder"]


class StepFailed(Exception):  # noqa: N818  (control flow, like StopIteration)
    """Ends an export: the failure is described, the original exception is the cause."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class StepRecorder:
    """Collects a `StepRecord` for each step that was begun.

    Args:
        on_step: Called with each step as it begins.
    """

    def __init__(self, on_step: Callable[[Step], None] | None = None) -> None:
        self.records: list[StepRecord] = []
        # The number that the records to come carry.
        self.attempt = 1
        self._on_step = on_step

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Time and measure the body.

        Raises:
            StepFailed: The body raised an `Exception`. What is not one (Ctrl-C, SystemExit) passes through.
        """
        if self._on_step is not None:
            self._on_step(step)
        can_measure = memory.reset_peak_rss()
        start_rss_bytes = memory.read_rss_bytes()
        anonymous = AnonymousPeak()
        start = time.perf_counter()
        try:
            with anonymous:
                yield
        except Exception as error:
            raise StepFailed(describe_failure(step, error)) from error
        finally:
            self.records.append(
                StepRecord(
                    step=step,
                    duration_s=time.perf_counter() - start,
                    peak_rss_bytes=memory.read_peak_rss_bytes() if can_measure else None,
                    attempt=self.attempt,
                    start_rss_bytes=start_rss_bytes,
                    start_anon_bytes=anonymous.start_bytes,
                    peak_anon_bytes=anonymous.peak_bytes,
                )
            )
