"""An executor whose exports take no time: it leaves, in this process, what a worker leaves.

For tests of what the batch does with results. `make_jobs` makes the jobs that go with it.
"""

import time
from collections.abc import Generator, Mapping, Sequence

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory, hash_parts
from exporter.failures import is_storage_error
from exporter.spec import ExportOptions, ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.worker import STATUS_STORAGE
from pipeline.batch import Job
from pipeline.config import Config
from pipeline.executor import Ended, Ending, Event, Started, Task
from registry_sync.options import TrackingOptions

__all__ = ["StubExecutor", "make_jobs", "write_export"]

_SIZE_BYTES = 1000


def make_jobs(*ids: str, opset_version: int = 18, **settings: object) -> list[Job]:
    """Jobs that nobody tracks; another opset version makes them due again."""
    model = ModelSpec(name="net", source={"_target_": "worker_models.Doubles"}, inputs={"x": Input(shape=[2])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    options = ExportOptions(opset_version=opset_version)
    chosen = {"tracking": TrackingOptions(mlflow=False, dvc=False)} | settings
    config = Config(model=model, precision=precision, export=options, **chosen)
    return [Job(ExportSpec(id=name, model=model, precision=precision, export=options), config) for name in ids]


def write_export(directory: ExportDirectory, size_bytes: int = _SIZE_BYTES) -> None:
    """Carry out the spec in a directory: the graph is made of what the export depends on."""
    started = time.time()
    spec = directory.read_spec()
    directory.log.write_text("nothing to tell\n")
    graph = hash_parts(directory.read_fingerprint()).encode()
    directory.model.write_bytes(graph)
    directory.model_data.write_bytes(graph * (size_bytes // len(graph)))
    write_result(directory, describe_result(spec, None, started, files=directory.record_files(), num_nodes=7))


class StubExecutor:
    """Runs one export after the other.

    Args:
        sizes: Of the weights, in bytes, of those that are not small.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self._sizes = sizes or {}

    def prepare(self) -> None:
        pass

    def require(self, tasks: Sequence[Task]) -> None:
        pass

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        for task in tasks:
            yield Started(task)
            yield Ended(task, Ending.exited, self._work(task), 0.0)

    def _work(self, task: Task) -> int:
        """As a worker's process would: what the disk does not take costs this export alone."""
        try:
            write_export(ExportDirectory(task.directory), self._sizes.get(task.id, _SIZE_BYTES))
        except OSError as error:
            if not is_storage_error(error):
                raise
            return STATUS_STORAGE
        return 0

    def close(self, *, at_once: bool = False) -> None:
        pass
