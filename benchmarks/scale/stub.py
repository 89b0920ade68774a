"""Exports that cost next to nothing, so that what is left is what a batch costs its parent; no torch in here."""

import os
import time
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.result import Step, StepRecord
from pipeline.executor import Ended, Ending, Event, Pulse, Started, Task

__all__ = ["StubExecutor", "run_stub", "write_export"]

_MODEL = b"no ONNX, for nobody looks into it" * 32


def write_export(directory: ExportDirectory) -> None:
    """Leave what an export that passed leaves, as far as the parent reads it."""
    started = time.time()
    directory.model.write_bytes(_MODEL)
    steps = [StepRecord(step=step, duration_s=0.1, peak_rss_bytes=300 << 20) for step in Step]
    result = describe_result(
        directory.read_spec(),
        None,
        started,
        files=directory.record_files(),
        steps=steps,
        baseline_rss_bytes=200 << 20,
        num_nodes=100,
    )
    write_result(directory, result)


def run_stub(path: str, threads: int, output: Connection) -> None:
    """Stand in for `exporter.worker.run_worker`."""
    os.setsid()
    os.write(output.fileno(), f"{threads} threads\n".encode())
    write_export(ExportDirectory(Path(path)))
    os._exit(0)


class StubExecutor:
    """Has no workers: each export is written in this process, at the moment when it would end.

    What that takes is no part of the batch's own, and counted here: `cpu_s` is user and system time, `wall_s` seconds
    on the clock.
    """

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.wall_s = 0.0

    def prepare(self) -> None:
        """There is nothing to begin."""

    def require(self, tasks: Sequence[Task]) -> None:
        """Any task can run."""

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:  # noqa: ARG002
        for task in tasks:
            yield Started(task)
            yield Pulse({task.id: 300 << 20})
            cpu_s, wall_s = time.process_time(), time.monotonic()
            write_export(ExportDirectory(task.directory))
            self.cpu_s += time.process_time() - cpu_s
            self.wall_s += time.monotonic() - wall_s
            yield Ended(task, Ending.exited, 0, 0.1)

    def close(self, *, at_once: bool = False) -> None:
        """There is nothing to end."""
