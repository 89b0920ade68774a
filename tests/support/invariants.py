"""What has to hold after every batch, whatever was done to it."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import psutil
from executors import find_workers

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, FailureKind
from exporter.result import Status
from exporter.worker import DIRECTORY_VARIABLE
from registry_sync.record import BatchRecord, Outcome, RunDirectory

MAX_ERROR_LINES = 15
FILES = {
    "fingerprint.json",
    "graph.html",
    "report.html",
    "report.md",
    "result.json",
    "spec.json",
    "worker.log",
    "worker-1.log",
}


@dataclass
class Ran:
    """A batch that was run in this process, in a folder of its own."""

    folder: Path
    code: ExitCode
    error_text: str
    run: RunDirectory
    record: BatchRecord
    # Of this process, while the batch ran: at the start, and at its highest.
    start_rss_bytes: int = 0
    peak_rss_bytes: int = 0

    def result(self, name: str):
        return self.run.read_result(name)

    def export(self, name: str):
        return next(export for export in self.record.exports if export.id == name)

    def directory(self, name: str) -> Path:
        return self.folder / self.export(name).directory

    def log(self, name: str) -> bytes:
        return (self.directory(name) / "worker.log").read_bytes()

    def model_hashes(self) -> dict[str, str]:
        return {
            path.name: ExportDirectory(path).read_result().files[0].sha256
            for path in (self.folder / "exports").iterdir()
        }


def run_in(folder: Path, start: Callable[[], ExitCode]) -> Ran:
    """Run a batch in a folder, with standard error caught as all processes see it."""
    words = folder / "stderr.txt"
    before = set((folder / "runs").iterdir()) if (folder / "runs").is_dir() else set()
    with chdir(folder), _errors_go_to(words):
        code = start()
    (path,) = set((folder / "runs").iterdir()) - before
    run = RunDirectory(path)
    return Ran(folder, code, words.read_text(), run, run.read_summary())


@contextmanager
def _errors_go_to(path: Path) -> Iterator[None]:
    kept = os.dup(2)
    # pytest has put a file of its own in the place of this process's.
    with path.open("w", buffering=1, encoding="utf-8") as file, redirect_stderr(file):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def list_shared_memory() -> set[str]:
    """The names of the files there, but for semaphores, which multiprocessing frees when this process ends.

    And but for folders: other tests make them there, which want a second file system.
    """
    files = [path.name for path in Path("/dev/shm").iterdir() if path.is_file()]
    return {name for name in files if not name.startswith("sem.mp-")}


def check_invariants(ran: Ran, names: Collection[str], undisturbed: Mapping[str, str], shared: Collection[str]) -> None:
    """See that a batch left only what it may.

    Args:
        ran: The batch.
        names: Of all its exports.
        undisturbed: The sha256 of model.onnx of those that nothing was done to, from a batch of them alone.
        shared: The names of the files of shared memory before the batch.
    """
    _check_exports(ran)
    assert Counter(export.id for export in ran.record.exports) == Counter(names)
    _check_events(ran, names)
    hashes = ran.model_hashes()
    assert {name: hashes.get(name) for name in undisturbed if name in names} == {
        name: sha256 for name, sha256 in undisturbed.items() if name in names
    }
    _check_leftovers(ran, shared)
    kinds = {export.id: export.failure.kind for export in ran.record.exports if export.failure is not None}
    assert FailureKind.internal_error not in kinds.values(), kinds
    is_well = all(export.outcome in (Outcome.passed, Outcome.up_to_date) for export in ran.record.exports)
    # Where no worker can be run at all, the machine is at fault.
    is_stopped = any(export.outcome is Outcome.cancelled for export in ran.record.exports)
    wanted = ExitCode.OK if is_well else ExitCode.STORAGE if is_stopped else ExitCode.EXPORT_FAILED
    assert ran.code == ran.record.exit_code == wanted
    lines = ran.error_text.splitlines()
    assert len(lines) <= MAX_ERROR_LINES, ran.error_text
    assert "Traceback" not in ran.error_text
    failed = [export for export in ran.record.exports if export.failure is not None]
    assert bool(lines) == (bool(failed) or is_stopped), ran.error_text
    for export in failed:
        assert export.failure.cause
        assert export.failure.hint
        assert (ran.folder / export.directory / "result.json").exists()


def _check_exports(ran: Ran) -> None:
    """exports/ holds whole, passed exports and nothing else."""
    good = {export.id for export in ran.record.exports if export.outcome in (Outcome.passed, Outcome.up_to_date)}
    assert {path.name for path in (ran.folder / "exports").iterdir()} == good
    for name in good:
        directory = ExportDirectory(ran.folder / "exports" / name)
        result = directory.read_result()
        assert result.status is Status.passed
        assert result.files
        assert directory.damaged_files(result) == []
        assert {path.name for path in directory.path.iterdir()} <= FILES | {file.path for file in result.files}


def _check_events(ran: Ran, names: Collection[str]) -> None:
    events = [json.loads(line) for line in ran.run.events.read_text().splitlines()]
    ended = [event["export"] for event in events if event["event"] == "export_ended"]
    assert Counter(ended) == Counter(names)
    started = Counter(event["export"] for event in events if event["event"] == "export_started")
    assert started == Counter({export.id: export.num_tries for export in ran.record.exports if export.num_tries})


def _check_leftovers(ran: Ran, shared: Collection[str]) -> None:
    assert find_workers() == []
    assert find_marked(ran.folder) == []
    left = [path for path in (ran.run.path / "exports").glob("*/*") if path.name in {"attempt", "current_step"}]
    assert left == []
    assert not list((ran.run.path).glob("**/.*"))
    deadline = time.monotonic() + 5
    while new := list_shared_memory() - set(shared):
        assert time.monotonic() < deadline, new
        time.sleep(0.1)


def find_marked(folder: Path) -> list[int]:
    """Processes that a worker in this folder started, or that one of those did."""
    marked = []
    for process in psutil.process_iter():
        try:
            path = process.environ().get(DIRECTORY_VARIABLE, "")
        except psutil.Error:
            continue
        if path.startswith(str(folder.resolve())) and process.status() != psutil.STATUS_ZOMBIE:
            marked.append(process.pid)
    return marked
