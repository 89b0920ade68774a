"""One batch of stub exports in this process, which measures itself and prints a line of JSON.

`benchmarks.scale` starts it by `python -c`: a fork server imports its parent's main module into each process that it
forks, and there is none then.
"""

import gc
import json
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from benchmarks.scale.stub import StubExecutor, run_stub
from exporter import memory
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.batch import Job, run_batch
from pipeline.config import Config
from pipeline.fork_server import ForkServer
from pipeline.local_executor import LocalExecutor
from registry_sync.options import TrackingOptions

__all__ = ["ScaleRecord", "Way", "main"]

# What an export without a result is expected to need (pipeline.expectation).
_EXPECTED_BYTES = 1 << 30


class Way(StrEnum):
    """What a batch consists of."""

    # A real process for each export, forked by the real executor. More may run than the memory budget lets: the
    # admission of each has to look for one that fits.
    processes = "processes"
    # The parent writes the results.
    in_process = "in_process"
    # Nothing is due, as the batch before was of the same exports.
    up_to_date = "up_to_date"


@dataclass(frozen=True, kw_only=True)
class ScaleRecord:
    """Of a whole batch, less what the stub took in this process."""

    way: Way
    num_exports: int
    wall_s: float
    # User and system time of the parent alone.
    cpu_s: float
    # On the clock, within fsync.
    fsync_s: float
    # Resident memory with all imports, before the first job, and at the highest.
    start_rss_bytes: int
    peak_rss_bytes: int

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """From the line of JSON."""
        return cls(**{**data, "way": Way(data["way"])})

    @property
    def cpu_per_export_s(self) -> float:
        return self.cpu_s / self.num_exports

    @property
    def memory_per_export_bytes(self) -> float:
        return (self.peak_rss_bytes - self.start_rss_bytes) / self.num_exports


def main() -> None:
    """Run one batch in the current folder; the arguments are the way, the exports and the workers."""
    way, num_exports, workers = sys.argv[1:]
    print(json.dumps(asdict(measure(Way(way), int(num_exports), int(workers)))))


def measure(way: Way, num_exports: int, workers: int) -> ScaleRecord:
    """Plan, run, publish and sum up a batch."""
    stub = StubExecutor()
    real = LocalExecutor(workers + 1, 600.0, workers * _EXPECTED_BYTES, ForkServer("benchmarks.scale.stub"), run_stub)
    fsync = _TimedFsync()
    gc.collect()
    start_rss_bytes = memory.read_rss_bytes() or 0
    memory.reset_peak_rss()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        code = run_batch(map(make_job, range(num_exports)), [], real if way is Way.processes else stub)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    if code != 0:
        raise SystemExit(f"the batch ended with {code}")
    if "torch" in sys.modules:
        raise SystemExit("the parent has imported torch")
    return ScaleRecord(
        way=way,
        num_exports=num_exports,
        wall_s=wall_s - stub.wall_s,
        cpu_s=cpu_s - stub.cpu_s,
        fsync_s=fsync.wall_s,
        start_rss_bytes=start_rss_bytes,
        peak_rss_bytes=memory.read_peak_rss_bytes() or 0,
    )


def make_job(number: int) -> Job:
    """A job as the command line makes them: no two share an object."""
    model = ModelSpec(
        name=f"net{number:05d}",
        source={"_target_": "exporter.zoo.mlp.MLP"},
        inputs={"tensor_x": Input(shape=[2, 8])},
        seed=number,
    )
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    tracking = TrackingOptions(mlflow=False, dvc=False)
    return Job(
        ExportSpec(id=model.name, model=model, precision=precision),
        Config(model=model, precision=precision, tracking=tracking),
    )


class _TimedFsync:
    """Takes the place of `os.fsync`, in which a batch spends most of its waiting."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self._fsync = os.fsync
        os.fsync = self

    def __call__(self, handle: int) -> None:
        start = time.monotonic()
        self._fsync(handle)
        self.wall_s += time.monotonic() - start
