"""The fork server is killed, once or again and again, or cannot start: its exports are tried again, or say so."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path

import pytest
from executors import make_local
from invariants import Ran, check_invariants, list_shared_memory, run_in

from exporter.errors import ExitCode, FailureKind
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.batch import Job, run_batch
from pipeline.config import Config
from pipeline.executor import Executor
from pipeline.fork_server import ForkServer
from pipeline.local_executor import LocalExecutor
from registry_sync.options import TrackingOptions
from registry_sync.record import Outcome

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0
SUPPORT = Path(__file__).parents[1] / "support"


def make_job(name: str, target: str, **arguments: object) -> Job:
    source = {"_target_": f"hostile_models.{target}", **arguments}
    model = ModelSpec(name="net", source=source, inputs={"x": Input(shape=[2, 3])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    config = Config(model=model, precision=precision, tracking=TrackingOptions(mlflow=False, dvc=False))
    return Job(ExportSpec(id=name, model=model, precision=precision), config)


def run(folder: Path, jobs: Sequence[Job], executor: Executor) -> Ran:
    shared = list_shared_memory()
    ran = run_in(folder, lambda: run_batch(jobs, [], executor=executor))
    check_invariants(ran, [job.spec.id for job in jobs], {}, shared)
    return ran


@contextmanager
def meanwhile(act: Callable[[], bool]) -> Iterator[None]:
    """Calls a function every few milliseconds in a thread, until it returns True."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.005) and not act():
            pass

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def kill_server() -> None:
    pid = forkserver._forkserver._forkserver_pid
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_exports_whose_server_is_killed_are_tried_once_more_and_pass(tmp_path):
    planted, at_work = tmp_path / "planted", tmp_path / "at_work"
    planted.touch()
    jobs = [make_job("waits", "WaitsForItsKiller", folder=str(tmp_path), file=str(at_work))]
    jobs += [make_job(name, "Sensitive") for name in ("calm1", "calm2", "calm3")]

    def act() -> bool:
        if not at_work.exists():
            return False
        # So that one of the calm ones is at work beside it.
        time.sleep(0.2)
        planted.unlink()
        kill_server()
        return True

    with meanwhile(act):
        ran = run(tmp_path, jobs, make_local(2, TIMEOUT_S))
    assert ran.code is ExitCode.OK
    tries = {export.id: export.num_tries for export in ran.record.exports}
    assert tries["waits"] == 2
    assert sorted(tries.values()) in ([1, 1, 1, 2], [1, 1, 2, 2])
    events = [json.loads(line) for line in ran.run.events.read_text().splitlines()]
    retried = {event["export"]: event["cause"] for event in events if event["event"] == "export_retried"}
    assert set(retried) == {name for name, number in tries.items() if number == 2}
    assert set(retried.values()) == {"the worker was lost: the server that it was forked from died"}


def test_a_model_that_kills_the_server_fails_and_its_neighbours_pass(tmp_path):
    (tmp_path / "planted").touch()
    jobs = [make_job("calm1", "Sensitive"), make_job("bad", "KillsItsParent", folder=str(tmp_path))]
    jobs += [make_job(name, "Sensitive") for name in ("calm2", "calm3", "calm4")]
    ran = run(tmp_path, jobs, make_local(2, TIMEOUT_S))
    assert {export.id: export.outcome for export in ran.record.exports} == {
        job.spec.id: Outcome.failed if job.spec.id == "bad" else Outcome.passed for job in jobs
    }
    bad = ran.export("bad")
    assert (bad.failure.kind, bad.num_tries) == (FailureKind.killed, 2)
    assert bad.failure.cause == "the worker was lost: the server that it was forked from died"


def test_a_server_that_is_killed_again_and_again_ends_the_batch(tmp_path):
    jobs = [make_job(f"calm{number}", "Sensitive") for number in range(6)]

    def act() -> bool:
        kill_server()
        return False

    with meanwhile(act):
        ran = run(tmp_path, jobs, make_local(2, TIMEOUT_S))
    assert {export.outcome for export in ran.record.exports} == {Outcome.cancelled}
    assert ran.error_text.startswith("the batch was stopped: no worker can run: the fork server ended")


def test_a_server_that_cannot_start_is_a_failure_of_each_export(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    jobs = [make_job(f"calm{number}", "Sensitive") for number in range(6)]
    ran = run(tmp_path, jobs, LocalExecutor(2, TIMEOUT_S, 8 << 30, ForkServer("planted_template")))
    assert {export.outcome for export in ran.record.exports} == {Outcome.failed}
    assert {export.failure.kind for export in ran.record.exports} == {FailureKind.killed}
    causes = {export.failure.cause for export in ran.record.exports}
    assert "the worker was lost: no worker could be forked: EOFError('unexpected EOF')" in causes
    assert "the worker was lost: the fork server died 5 times: EOFError('unexpected EOF')" in causes
    assert len(causes) == 2


def test_a_server_that_hangs_is_replaced_before_an_export_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.fork_server._ANSWER_S", 30.0)
    jobs = [make_job(f"calm{number}", "Sensitive") for number in range(3)]

    def act() -> bool:
        pid = forkserver._forkserver._forkserver_pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        return pid is not None

    with meanwhile(act):
        ran = run(tmp_path, jobs, make_local(2, TIMEOUT_S))
    assert ran.code is ExitCode.OK
    assert {export.num_tries for export in ran.record.exports} == {1}
