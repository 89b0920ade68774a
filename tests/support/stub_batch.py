"""A real batch whose workers are stubs: `python stub_batch.py NAME ... [--workers N] [--pause S]`, in an empty folder.

An export whose name has `fail` in it fails, one with `lost` is lost at its first try. No torch, no processes.
"""

import argparse
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.result import Step, StepRecord
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.__main__ import _open_standard_streams
from pipeline.batch import Job, run_batch
from pipeline.config import Config, ExecutorOptions
from pipeline.executor import Ended, Ending, Event, Pulse, Started, Task
from registry_sync.options import TrackingOptions

CAUSE = "no ONNX function for aten.\x1b[31mmystery\x1b[0m\r caf\u00e9"
_STEPS = (Step.build, Step.capture, Step.parity)


class StubExecutor:
    """Runs tasks in rounds: as many as there are workers begin, take their steps, and end."""

    def __init__(self, workers: int, pause_s: float = 0.0, noise: str = "") -> None:
        self._workers = workers
        self._pause_s = pause_s
        self._noise = noise

    def prepare(self) -> None:
        pass

    def require(self, tasks: Sequence[Task]) -> None:
        pass

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        workers = 1 if alone else self._workers
        for first in range(0, len(tasks), workers):
            group = tasks[first : first + workers]
            yield from map(Started, group)
            sys.stderr.write(self._noise)
            for number, step in enumerate(_STEPS, 1):
                for task in group:
                    ExportDirectory(task.directory).current_step.write_text(step.value)
                for _ in range(2):
                    yield Pulse({task.id: number * 100 << 20 for task in group})
                    time.sleep(self._pause_s / 2)
            for task in group:
                yield self._end(task, alone=alone)

    def _end(self, task: Task, *, alone: bool) -> Ended:
        directory = ExportDirectory(task.directory)
        if "lost" in task.id and not alone:
            return Ended(task, Ending.lost, 255, 1.0, "planted")
        failure = None
        if "fail" in task.id:
            failure = make_failure(Step.capture, FailureKind.unsupported_op, CAUSE)
        else:
            directory.model.write_bytes(b"a graph")
        directory.current_step.unlink()
        result = describe_result(
            directory.read_spec(),
            failure,
            time.time() - 1.0,
            files=directory.record_files(),
            steps=[StepRecord(step=step, duration_s=0.3, peak_rss_bytes=300 << 20) for step in _STEPS],
            baseline_rss_bytes=100 << 20,
        )
        write_result(directory, result)
        return Ended(task, Ending.exited, 0, 1.0, was_alone=alone)

    def close(self, *, at_once: bool = False) -> None:
        pass


def make_jobs(names: Sequence[str], workers: int) -> list[Job]:
    model = ModelSpec(name="net", source={"_target_": "exporter.zoo.mlp.MLP"}, inputs={"tensor_x": Input([2, 8])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    config = Config(
        model=model,
        precision=precision,
        executor=ExecutorOptions(workers=workers),
        tracking=TrackingOptions(mlflow=False, dvc=False),
    )
    return [Job(ExportSpec(id=name, model=model, precision=precision), config) for name in names]


def main() -> int:
    _open_standard_streams()
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--noise", default="")
    options = parser.parse_args()
    executor = StubExecutor(options.workers, options.pause, options.noise)
    return run_batch(make_jobs(options.names, options.workers), sys.argv[1:], executor)


if __name__ == "__main__":
    assert not any(Path.cwd().glob("exports/*")), "for an empty folder"
    sys.exit(main())
