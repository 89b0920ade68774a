"""What a model does to its worker costs its own export and nothing else: batches of bad ones, on every executor."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from executors import find_sleepers, make_local
from hostile_models import OUTPUT_BYTES
from invariants import Ran, check_invariants, list_shared_memory, run_in

from exporter import memory
from exporter.errors import ExitCode, FailureKind
from exporter.result import Step
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.batch import Job, run_batch
from pipeline.config import Config
from pipeline.executor import Executor
from registry_sync.options import TrackingOptions
from registry_sync.record import Outcome

pytestmark = pytest.mark.slow

TIMEOUT_S = 20.0
# `sleep` takes fractions: no other test run on this machine has a child with this command line.
CHILD_S = f"986.{os.getpid()}"
WRITER_S = f"00{os.getpid()}"

CALM = {"Calm1": 4, "Calm2": 5, "Calm3": 6}
PASSING = (
    "ChangesTheProcess",
    "Imported",
    "NeverEndsByItself",
    "StopsUntilContinued",
    "PrintsWithoutEnd",
    "LeavesADoubleForkedDaemon",
    "LeavesADaemonWithoutEnvironment",
    "LeavesManyChildren",
    "LeavesAWriterBehind",
)
FAILING = (
    "WaitsForItsKiller",
    "AsksForTooMuch",
    "IsRefusedMemory",
    "IsRefusedMemoryByPython",
    "RaisesGeneratorExit",
    "RaisesBaseException",
    "ExitsWithText",
    "RaisesWithoutWords",
    "ExitsWithoutWords",
    "RaisesNoise",
    "RaisesUnpicklable",
    "RaisesAtLength",
)
# The one that takes all its time first, so that the rest does not wait for it.
ALL = ("Calm1", "StopsForGood", *PASSING, "Calm2", *FAILING, "Calm3")


def make_job(name: str, folder: Path) -> Job:
    source: dict[str, object] = {"_target_": f"hostile_models.{name}", "folder": str(folder)}
    if name in CALM:
        source = {"_target_": "hostile_models.Sensitive", "width": CALM[name]}
    elif name == "Imported":
        source = {"_target_": "hostile_import.Imported"}
    elif name in ("WaitsForItsKiller", "StopsUntilContinued"):
        source["file"] = str(folder / name)
    elif name.startswith("Leaves"):
        source["seconds"] = WRITER_S if name == "LeavesAWriterBehind" else CHILD_S
    model = ModelSpec(name="net", source=source, inputs={"x": Input(shape=[2, 3])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    tracking = TrackingOptions(mlflow=False, dvc=False)
    spec = ExportSpec(id=name, model=model, precision=precision)
    return Job(spec, Config(model=model, precision=precision, tracking=tracking))


def run(folder: Path, names: Sequence[str], executor: Executor) -> Ran:
    jobs = [make_job(name, folder) for name in names]

    def start() -> ExitCode:
        return run_batch(jobs, [], executor=executor)

    memory.reset_peak_rss()
    before = memory.read_rss_bytes()
    ran = run_in(folder, start)
    ran.start_rss_bytes, ran.peak_rss_bytes = before, memory.read_peak_rss_bytes()
    return ran


@contextmanager
def operator(folder: Path) -> Iterator[None]:
    """Does from outside what the models in question wait for."""
    done = threading.Event()

    def act() -> None:
        while not done.wait(0.05):
            for name, number, delay_s in (
                ("WaitsForItsKiller", signal.SIGKILL, 0),
                ("StopsUntilContinued", signal.SIGCONT, 2),
            ):
                file = folder / name
                if file.exists():
                    time.sleep(delay_s)
                    os.kill(int(file.read_text()), number)
                    file.unlink()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Stage:
    folder: Path
    shared: set[str]
    # The sha256 of model.onnx of the calm ones, by themselves.
    undisturbed: dict[str, str]
    ran: Ran
    again: Ran | None = None


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    shared = list_shared_memory()
    calm = run(tmp_path_factory.mktemp("calm"), list(CALM), make_local(2, TIMEOUT_S))
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "planted").touch()
    with operator(folder):
        ran = run(folder, ALL, make_local(2, TIMEOUT_S))
    check_invariants(ran, ALL, calm.model_hashes(), shared)
    yield Stage(folder, shared, calm.model_hashes(), ran)
    for pid in find_sleepers(CHILD_S):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", PASSING)
def test_a_model_that_behaves_badly_but_exports_passes_at_the_first_try(stage, name):
    export = stage.ran.export(name)
    assert export.failure is None
    assert (export.outcome, export.num_tries) == (Outcome.passed, 1)


@pytest.mark.parametrize("name", CALM)
def test_the_bytes_of_the_others_are_what_they_are_without_the_bad_ones(stage, name):
    assert stage.ran.model_hashes()[name] == stage.undisturbed[name]
    assert len(set(stage.undisturbed.values())) == len(CALM)


@pytest.mark.parametrize(
    ("name", "kind", "step", "cause", "num_tries"),
    [
        ("StopsForGood", FailureKind.timeout, Step.build, "no result after 20 s", 1),
        ("WaitsForItsKiller", FailureKind.killed, Step.build, "the worker died of SIGKILL", 1),
        ("AsksForTooMuch", FailureKind.out_of_memory, Step.build, "you tried to allocate 1152921504606846976 bytes", 2),
        ("IsRefusedMemory", FailureKind.out_of_memory, Step.build, "you tried to allocate 2147483648 bytes", 2),
        ("IsRefusedMemoryByPython", FailureKind.out_of_memory, Step.build, "MemoryError", 2),
        ("RaisesGeneratorExit", FailureKind.exited_early, Step.capture, "GeneratorExit", 1),
        ("RaisesBaseException", FailureKind.exited_early, Step.capture, "OwnBaseException: not an Exception", 1),
        ("ExitsWithText", FailureKind.exited_early, Step.capture, "SystemExit: giving up", 1),
        ("RaisesWithoutWords", FailureKind.build_error, Step.build, "SpeechlessError", 1),
        ("ExitsWithoutWords", FailureKind.exited_early, Step.build, "SpeechlessExit", 1),
        (
            "RaisesNoise",
            FailureKind.build_error,
            Step.build,
            r"surrogate \udcff, a NUL \x00, a bell \x07, red \x1b]0;",
            1,
        ),
        (
            "RaisesUnpicklable",
            FailureKind.forward_error,
            Step.capture,
            "PyTorch on the example: UnpicklableError: holds a lock",
            1,
        ),
        ("RaisesAtLength", FailureKind.build_error, Step.build, "RuntimeError: 0123456789abcdef/", 1),
    ],
)
def test_what_a_model_does_is_told_by_its_own_result(stage, name, kind, step, cause, num_tries):
    export = stage.ran.export(name)
    assert export.outcome is Outcome.failed
    assert (export.failure.kind, export.failure.step, export.num_tries) == (kind, step, num_tries)
    assert cause in export.failure.cause


def test_a_message_of_ten_megabytes_is_cut_in_every_file_but_the_log(stage):
    assert len(stage.ran.export("RaisesAtLength").failure.cause) == 400
    files = [path for path in stage.ran.directory("RaisesAtLength").rglob("*") if path.is_file()]
    assert {path.name for path in files if path.stat().st_size > 100_000} == {"worker.log"}
    assert stage.ran.run.summary.stat().st_size < 100_000


def test_the_log_of_a_model_that_prints_without_end_is_cut_in_the_middle_and_says_so(stage):
    log = stage.ran.log("PrintsWithoutEnd")
    assert len(log) < 11_000_000 < OUTPUT_BYTES
    assert b"the beginning\n" in log
    assert b"bytes left out ...]\n" in log
    assert b"\nthe end\n" in log


def test_the_memory_of_the_parent_does_not_grow_with_what_a_model_prints(stage):
    # The end of the log, which is kept in memory, is 5 MB.
    assert stage.ran.peak_rss_bytes - stage.ran.start_rss_bytes < 50_000_000


def test_the_log_is_not_written_to_any_more_once_the_export_is_published(stage):
    directory = stage.ran.directory("LeavesAWriterBehind")
    assert b"still here\n" in stage.ran.log("LeavesAWriterBehind")
    # The parent keeps the result of an export, and then publishes it.
    kept = stage.ran.run.result(directory.name)
    assert (directory / "worker.log").stat().st_mtime_ns <= kept.stat().st_mtime_ns


def test_no_daemon_of_any_kind_survives_the_batch(stage):
    assert find_sleepers(CHILD_S) == []


def test_the_module_of_a_model_is_imported_by_workers_alone(stage):
    assert b"imported by " in stage.ran.log("Imported")
    assert "hostile_import" not in sys.modules
    assert "MODELPRESS_TEST_TRACE" not in os.environ


def test_the_next_run_exports_what_failed_and_nothing_else_and_converges(stage):
    (stage.folder / "planted").unlink()
    again = run(stage.folder, ALL, make_local(2, TIMEOUT_S))
    check_invariants(again, ALL, stage.undisturbed, stage.shared)
    assert again.code is ExitCode.OK
    failed = {export.id for export in stage.ran.record.exports if export.outcome is Outcome.failed}
    assert {export.id for export in again.record.exports if export.outcome is Outcome.passed} == failed
    assert {export.outcome for export in again.record.exports} == {Outcome.passed, Outcome.up_to_date}
