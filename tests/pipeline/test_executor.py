"""The suite that every executor has to pass: real worker processes, most of which come to a bad end."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from executors import EXECUTORS, Maker, find_sleepers, find_workers, make_local, open_maker

from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.files import write_json
from exporter.result import ExportResult, Status, Step
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.executor import Ended, Ending, Pulse, Started, Task
from pipeline.outcomes import collect_result

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", params=EXECUTORS)
def make_executor(request, tmp_path_factory) -> Iterator[Maker]:
    with open_maker(request.param, tmp_path_factory.getbasetemp()) as maker:
        yield maker


TIMEOUT_S = 20.0
# `sleep` takes fractions: no other test run on this machine has a child with these command lines.
CHILD_S = f"987.{os.getpid()}"
DAEMON_S = f"988.{os.getpid()}"

# The long ones first, side by side, so that the rest does not wait for them.
CLASSES = (
    "IgnoresSigtermAndHangs",
    "HangsHoldingTheInterpreter",
    "Segfaults",
    "Aborts",
    "KillsItself",
    "ExitsAtOnce",
    "CallsSysExit",
    "RaisesKeyboardInterrupt",
    "Doubles",
    "PrintsNoise",
    "TellsOfGpus",
    "ClosesStandardStreams",
    "NeedsADaemon",
    "LeavesAChildBehind",
    "LeavesADaemonBehind",
    "ChangesCwdAndUmask",
    "Healthy",
)
SECONDS = {"IgnoresSigtermAndHangs": CHILD_S, "LeavesAChildBehind": CHILD_S, "LeavesADaemonBehind": DAEMON_S}
SECONDS["NeedsADaemon"] = DAEMON_S


@dataclass
class Batch:
    """What a run of all of them left."""

    events: list[Started | Ended] = field(default_factory=list)
    results: dict[str, ExportResult] = field(default_factory=dict)
    directories: dict[str, Path] = field(default_factory=dict)
    workers_left: list[psutil.Process] = field(default_factory=list)
    children_left: list[int] = field(default_factory=list)
    daemons_left: list[int] = field(default_factory=list)
    most_at_a_time: int = 0

    def ended(self, name: str) -> Ended:
        return next(event for event in self.events if isinstance(event, Ended) and event.task.id == name)

    def log(self, name: str) -> bytes:
        return (self.directories[name] / "worker.log").read_bytes()


def make_spec(name: str) -> ExportSpec:
    source = {"_target_": f"worker_models.{'Doubles' if name == 'Healthy' else name}"}
    if name in SECONDS:
        source["seconds"] = SECONDS[name]
    model = ModelSpec(name=name, source=source, inputs={"x": Input(shape=[2, 3])})
    return ExportSpec(id=name, model=model, precision=Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5))


def make_task(spec: ExportSpec, parent: Path) -> Task:
    directory = ExportDirectory(parent / spec.id)
    directory.path.mkdir()
    write_json(directory.spec, spec)
    return Task(spec.id, directory.path)


@pytest.fixture(scope="session")
def batch(make_executor, tmp_path_factory):
    parent = tmp_path_factory.mktemp("batch")
    specs = {name: make_spec(name) for name in CLASSES}
    batch = Batch(directories={name: parent / name for name in CLASSES})
    at_work: set[str] = set()
    executor = make_executor(2, TIMEOUT_S)
    for event in executor.run([make_task(spec, parent) for spec in specs.values()]):
        if isinstance(event, Started):
            at_work.add(event.task.id)
            batch.most_at_a_time = max(batch.most_at_a_time, len(at_work))
        elif isinstance(event, Ended):
            at_work.discard(event.task.id)
            batch.results[event.task.id] = collect_result(specs[event.task.id], event)
        if not isinstance(event, Pulse):
            batch.events.append(event)
    executor.close()
    batch.workers_left = find_workers()
    batch.children_left = find_sleepers(CHILD_S)
    batch.daemons_left = find_sleepers(DAEMON_S)
    yield batch
    for pid in (*batch.children_left, *batch.daemons_left):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


@pytest.mark.parametrize("name", ["Doubles", "Healthy"])
def test_a_healthy_model_passes_beside_dying_ones(batch, name):
    result = batch.results[name]
    assert result.failure is None
    assert result.status is Status.passed
    assert [file.path for file in result.files] == ["model.onnx"]
    assert ExportDirectory(batch.directories[name]).damaged_files(result) == []


@pytest.mark.parametrize(
    "name",
    [
        "PrintsNoise",
        "ClosesStandardStreams",
        "LeavesAChildBehind",
        "LeavesADaemonBehind",
        "ChangesCwdAndUmask",
        "NeedsADaemon",
    ],
)
def test_a_model_that_behaves_badly_but_exports_passes(batch, name):
    result = batch.results[name]
    assert result.failure is None
    assert result.status is Status.passed
    assert ExportDirectory(batch.directories[name]).damaged_files(result) == []


@pytest.mark.parametrize(
    ("name", "kind", "step", "cause"),
    [
        ("Segfaults", FailureKind.crashed, Step.capture, "the worker died of SIGSEGV"),
        ("Aborts", FailureKind.crashed, Step.build, "the worker died of SIGABRT"),
        ("KillsItself", FailureKind.killed, Step.build, "the worker died of SIGKILL"),
        (
            "ExitsAtOnce",
            FailureKind.exited_early,
            Step.capture,
            "the worker ended with exit status 0 and no result",
        ),
        ("CallsSysExit", FailureKind.exited_early, Step.capture, "SystemExit: 3"),
        ("RaisesKeyboardInterrupt", FailureKind.exited_early, Step.build, "KeyboardInterrupt"),
        (
            "IgnoresSigtermAndHangs",
            FailureKind.timeout,
            Step.build,
            "no result after 20 s; the worker was ended",
        ),
        (
            "HangsHoldingTheInterpreter",
            FailureKind.timeout,
            Step.capture,
            "no result after 20 s; the worker was ended",
        ),
    ],
)
def test_a_dead_worker_is_reported_with_its_step_and_its_cause(batch, name, kind, step, cause):
    result = batch.results[name]
    assert result.status is Status.failed
    assert (result.failure.kind, result.failure.step, result.failure.cause) == (kind, step, cause)
    assert result.failure.hint


@pytest.mark.parametrize(
    ("name", "ending", "code"),
    [
        ("Doubles", Ending.exited, 0),
        ("ExitsAtOnce", Ending.exited, 0),
        ("Segfaults", Ending.signalled, 11),
        ("Aborts", Ending.signalled, 6),
        ("KillsItself", Ending.signalled, 9),
        ("IgnoresSigtermAndHangs", Ending.timed_out, 20),
        ("HangsHoldingTheInterpreter", Ending.timed_out, 20),
    ],
)
def test_an_ended_event_tells_the_ending_and_its_code(batch, name, ending, code):
    ended = batch.ended(name)
    assert (ended.ending, ended.code) == (ending, code)


@pytest.mark.parametrize("name", ["IgnoresSigtermAndHangs", "HangsHoldingTheInterpreter"])
def test_a_timed_out_worker_is_gone_soon_after_its_time(batch, name):
    # 2 s from SIGTERM to SIGKILL, and some for a busy machine.
    assert TIMEOUT_S <= batch.ended(name).duration_s < TIMEOUT_S + 10


def test_a_failed_export_has_its_result_on_disk_and_no_current_step(batch):
    for name, result in batch.results.items():
        directory = ExportDirectory(batch.directories[name])
        assert directory.read_result() == result
        assert not directory.current_step.exists(), name


def test_every_task_starts_once_and_ends_once_after_it(batch):
    started = Counter(event.task.id for event in batch.events if isinstance(event, Started))
    ended = Counter(event.task.id for event in batch.events if isinstance(event, Ended))
    assert started == ended == Counter(CLASSES)
    for name in CLASSES:
        assert [type(event) for event in batch.events if event.task.id == name] == [Started, Ended]


def test_tasks_start_in_the_order_given(batch):
    # Ray starts two at once on two processes, either of which may be the first.
    started = [event.task.id for event in batch.events if isinstance(event, Started)]
    assert [CLASSES.index(name) // 2 for name in started[:2]] == [0, 0]
    assert all(abs(place - CLASSES.index(name)) <= 1 for place, name in enumerate(started))


def test_no_more_workers_run_than_were_asked_for(batch):
    assert batch.most_at_a_time == 2


def test_no_worker_survives_the_batch(batch):
    assert batch.workers_left == []


def test_no_child_of_a_worker_survives_the_batch(batch):
    assert batch.children_left == []


def test_no_child_with_a_session_of_its_own_survives_the_batch(batch):
    assert batch.daemons_left == []


def test_the_log_of_a_segfault_holds_the_stack(batch):
    log = batch.log("Segfaults")
    assert b"Fatal Python error: Segmentation fault" in log
    assert b"worker_models.py" in log
    assert b"in forward" in log


@pytest.mark.parametrize(
    ("name", "frame"), [("IgnoresSigtermAndHangs", b"in __init__"), ("HangsHoldingTheInterpreter", b"in forward")]
)
def test_the_log_of_a_time_out_holds_the_stack_where_it_hung(batch, name, frame):
    # The main thread's comes last, after that of the thread that samples memory.
    stack = batch.log(name).rpartition(b"(most recent call first)")[2]
    assert b"worker_models.py" in stack.splitlines()[1]
    assert stack.splitlines()[1].endswith(frame)


def test_the_log_keeps_all_that_a_model_prints_byte_by_byte(batch):
    log = batch.log("PrintsNoise")
    assert b"\xff\xfe not UTF-8 \x80\n" in log
    assert b"a lone surrogate: \\udcff\n" in log
    assert b"\n" + b"n" * 5_000_000 + b"\n" in log


def test_a_worker_for_the_cpu_is_shown_no_gpu_and_counts_none_by_the_driver(batch):
    assert batch.results["TellsOfGpus"].status is Status.passed
    assert b"GPUs: '' '1'\n" in batch.log("TellsOfGpus")


def test_nothing_that_workers_print_reaches_the_terminal(make_executor, tmp_path, capfd):
    executor = make_executor(1, TIMEOUT_S)
    list(executor.run([make_task(make_spec("PrintsNoise"), tmp_path)]))
    executor.close()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (tmp_path / "PrintsNoise" / "worker.log").stat().st_size > 5_000_000


def test_a_run_closed_early_leaves_no_worker_and_no_child_of_one(make_executor, tmp_path):
    specs = [make_spec(name) for name in ("IgnoresSigtermAndHangs", "Doubles", "Healthy")]
    seconds = specs[0].model.source["seconds"] = f"989.{os.getpid()}"
    tasks = [make_task(spec, tmp_path) for spec in specs]
    executor = make_executor(1, 60.0)
    events = executor.run(tasks)
    assert next(event for event in events if not isinstance(event, Pulse)) == Started(tasks[0])
    deadline = time.monotonic() + 30
    while not find_sleepers(seconds):
        assert time.monotonic() < deadline, "the worker never came as far as its child"
        next(events)
    assert len(find_workers()) == 2, "the worker and its child"
    events.close()
    executor.close()
    assert find_sleepers(seconds) == []
    assert find_workers() == []
    assert not (tmp_path / "Doubles" / "worker.log").exists()


def test_a_worker_for_a_gpu_is_no_fork_of_the_warm_server(tmp_path):
    task = replace(make_task(make_spec("TellsOfItsParent"), tmp_path), on_gpu=True)
    executor = make_local(1, TIMEOUT_S * 3)
    (ended,) = (event for event in executor.run([task]) if isinstance(event, Ended))
    executor.close()
    assert (ended.ending, ended.code) == (Ending.exited, 0)
    assert f"parent {os.getpid()}\n".encode() in (task.directory / "worker.log").read_bytes()


def test_no_tasks_are_no_events(make_executor):
    assert list(make_executor(2, TIMEOUT_S).run([])) == []
