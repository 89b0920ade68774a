import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from stub_executor import StubExecutor, make_jobs

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, FailureKind
from exporter.failures import make_failure
from exporter.worker import DIRECTORY_VARIABLE
from pipeline.batch import run_batch
from pipeline.config import OutputOptions
from pipeline.executor import Ended, Ending, Started
from registry_sync.record import Outcome, RunDirectory


class Killed(BaseException):
    """Ends a batch where it stands, as SIGKILL would."""


class KilledExecutor(StubExecutor):
    """`good` passes, `bad` fails, and while `half` is at work the batch is killed."""

    def run(self, tasks, *, alone=False):
        for task in sorted(tasks, key=lambda task: ["bad", "good", "half", "last"].index(task.id)):
            yield Started(task)
            directory = ExportDirectory(task.directory)
            if task.id == "half":
                directory.model.write_bytes(b"half of it")
                directory.scratch.path.mkdir()
                directory.log.write_text("at work\n")
                (directory.path / ".result.json.123").write_text("{")
                raise Killed
            if task.id == "bad":
                failure = make_failure(None, FailureKind.forward_error, "planted")
                write_result(directory, describe_result(directory.read_spec(), failure, time.time()))
                directory.model.write_bytes(b"to look at")
                yield Ended(task, Ending.exited, 0, 0.0)
            else:
                yield Ended(task, Ending.exited, self._work(task), 0.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def be_killed(*ids, **settings) -> RunDirectory:
    with pytest.raises(Killed):
        run_batch(make_jobs(*ids, **settings), ["+model=net"], KilledExecutor())
    (run,) = unfinished()
    return run


def unfinished() -> list[RunDirectory]:
    return [RunDirectory(path) for path in Path("runs").iterdir() if not (path / "summary.json").exists()]


def test_each_export_of_a_killed_run_gets_its_outcome(folder, capfd):
    run = be_killed("half", "good", "last", "bad")
    assert run_batch(make_jobs("good"), [], StubExecutor()) is ExitCode.OK
    record = run.read_summary()
    assert (record.exit_code, record.command, record.run_id) == (137, ["+model=net"], run.path.name)
    assert record.ended_at >= record.started_at
    assert record.duration_s >= 0
    assert [(export.id, export.outcome, export.num_tries) for export in record.exports] == [
        ("half", Outcome.cancelled, 1),
        ("good", Outcome.passed, 1),
        ("last", Outcome.cancelled, 0),
        ("bad", Outcome.failed, 1),
    ]
    half, good, _, bad = record.exports
    assert (good.directory, good.num_nodes, good.reason) == ("exports/good", 7, "new")
    assert bad.failure.cause == "planted"
    assert (Path(bad.directory) / "model.onnx").read_bytes() == b"to look at"
    assert sorted(path.name for path in Path(half.directory).iterdir()) == [
        "fingerprint.json",
        "spec.json",
        "worker.log",
    ]
    assert json.loads(run.events.read_text().splitlines()[-1])["exit_code"] == 137
    assert f"{run.path} was killed; its record is complete now: {run.summary}" in capfd.readouterr().out


def test_a_published_result_that_is_not_the_killed_runs_own_is_none_of_it(folder):
    run_batch(make_jobs("good"), [], StubExecutor())
    earlier = Path("exports/good/result.json").read_bytes()
    run = be_killed("good", "half", opset_version=20)
    # As if it had been killed before the publication.
    Path("exports/good/result.json").write_bytes(earlier)
    run_batch(make_jobs("good", opset_version=20), [], StubExecutor())
    assert [export.outcome for export in run.read_summary().exports] == [Outcome.cancelled, Outcome.cancelled]


def test_an_event_that_was_cut_off_does_no_harm(folder):
    run = be_killed("good", "half")
    with run.events.open("a") as file:
        file.write('{"time": "2026-')
    run_batch(make_jobs("good"), [], StubExecutor())
    assert [export.num_tries for export in run.read_summary().exports] == [1, 1]


def test_an_event_with_a_damaged_time_does_no_harm(folder):
    run = be_killed("good", "half")
    with run.events.open("a") as file:
        file.write('{"time": "someday", "event": "export_step"}\n{"time": 7, "event": "export_step"}\n')
    assert run_batch(make_jobs("good"), [], StubExecutor()) is ExitCode.OK
    assert run.read_summary().duration_s >= 0


@pytest.mark.parametrize("removed", ["events.jsonl", "results", "exports"])
def test_a_killed_run_of_which_a_part_was_removed_stands_in_nobodys_way(folder, removed):
    run = be_killed("good", "half")
    path = run.path / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run_batch(make_jobs("good"), [], StubExecutor()) is ExitCode.OK
    good = Outcome.cancelled if removed == "results" else Outcome.passed
    assert [export.outcome for export in run.read_summary().exports] == [good, Outcome.cancelled]


def test_a_run_of_other_exports_is_left_alone_whether_dead_or_alive(folder):
    run = be_killed("good", "half", output=OutputOptions(exports="elsewhere"))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert run_batch(make_jobs("good"), [], StubExecutor()) is ExitCode.OK
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    run_batch(make_jobs("good", output=OutputOptions(exports="elsewhere")), [], StubExecutor())
    assert unfinished() == []


def test_a_killed_run_is_recovered_where_the_project_was_moved_to(folder, monkeypatch):
    run = be_killed("good", "half")
    shutil.move(folder / "project", folder / "moved")
    monkeypatch.chdir(folder / "moved")
    run_batch(make_jobs("good"), [], StubExecutor())
    assert [export.outcome for export in run.read_summary().exports] == [Outcome.passed, Outcome.cancelled]


def test_what_is_no_run_of_ours_is_left_alone(folder):
    (Path("runs") / "notes").mkdir(parents=True)
    (Path("runs") / "broken").mkdir()
    (Path("runs") / "broken" / "plan.json").write_text('{"exports": 3}')
    (Path("runs") / "a file").write_text("of the user's")
    assert run_batch(make_jobs("good"), [], StubExecutor()) is ExitCode.OK
    left = {path.name: sorted(item.name for item in path.glob("*")) for path in Path("runs").iterdir()}
    assert (left["notes"], left["broken"], left["a file"]) == ([], ["plan.json"], [])


def test_what_the_models_of_a_killed_run_started_is_ended_and_no_one_elses(folder):
    run = be_killed("good", "half")
    ours, other = (
        subprocess.Popen(["sleep", "60"], env={DIRECTORY_VARIABLE: str(path.resolve())}, start_new_session=True)
        for path in (run.export_directory("half"), run.path.with_name(run.path.name + "x") / "exports" / "half")
    )
    try:
        run_batch(make_jobs("good"), [], StubExecutor())
        assert ours.wait(10) == -9
        assert psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_a_metrics_file_that_a_killed_run_did_not_come_to_is_brought_up_to_date(folder):
    run_batch(make_jobs("good"), [], StubExecutor())
    metrics = Path("metrics/good.json")
    right = metrics.read_text()
    for left in ('{"num_nodes": 1}', "{", ""):
        metrics.write_text(left)
        run_batch(make_jobs("good"), [], StubExecutor())
        assert metrics.read_text() == right
