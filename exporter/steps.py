"""Runs a step: its time, its peak memory, and the one place where an exception becomes a `Failure`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from exporter import memory
from exporter.failures import describe_failure
from exporter.result import Failure, Step, StepRecord
from exporter.sampling import AnonymousPeak

__all__ = ["PeakMeter", "StepFailed", "StepRecorder"]


class PeakMeter(Protocol):
    """A memory beside the process's own, with a high-water mark: a GPU's."""

    def reset_peak(self) -> None: ...

    def read_peak_bytes(self) -> int: ...


class StepFailed(Exception):  # noqa: N818  (control flow, like StopIteration)
    """Ends an export: the failure is described, the original exception is the cause."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class StepRecorder:
    """Collects a `StepRecord` for each step that was begun.

    Args:
        on_step: Called with each step as it begins.
        gpu: Of the GPU that the model is on, if it is on one.
    """

    def __init__(self, on_step: Callable[[Step], None] | None = None, gpu: PeakMeter | None = None) -> None:
        self.records: list[StepRecord] = []
        # The number that the records to come carry.
        self.attempt = 1
        self._on_step = on_step
        self._gpu = gpu

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Time and measure the body.

        Raises:
            StepFailed: The body raised an `Exception`. What is not one (Ctrl-C, SystemExit) passes through.
        """
        if self._on_step is not None:
            self._on_step(step)
        can_measure = memory.reset_peak_rss()
        if self._gpu is not None:
            self._gpu.reset_peak()
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
                    cuda_peak_bytes=None if self._gpu is None else self._gpu.read_peak_bytes(),
                )
            )
