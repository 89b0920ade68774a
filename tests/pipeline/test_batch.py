import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, LockedError, StorageError
from exporter.files import write_json
from exporter.lock import lock_output
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.batch import Job, run_batch
from pipeline.cli import run
from pipeline.config import Config, ExecutorOptions, OutputOptions
from pipeline.fingerprint import take_fingerprint
from pipeline.source_code import forget_sources
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, Outcome, RunDirectory
from registry_sync.release_options import ReleaseOptions


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_sources()
    return tmp_path


def make_job(export_id: str = "net", target: str = "worker_models.Doubles", **settings) -> Job:
    """A job that nobody tracks."""
    model = ModelSpec(name="net", source={"_target_": target}, inputs={"x": Input(shape=[2])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    settings = {"tracking": TrackingOptions(mlflow=False, dvc=False)} | settings
    return Job(
        spec=ExportSpec(id=export_id, model=model, precision=precision),
        config=Config(model=model, precision=precision, **settings),
    )


def publish_export(spec: ExportSpec) -> None:
    """What an earlier run would have left."""
    directory = ExportDirectory(Path("exports") / spec.id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(b"a graph")
    write_json(directory.fingerprint, take_fingerprint(spec))
    write_result(directory, describe_result(spec, None, time.time(), files=directory.record_files(), num_nodes=7))


def read_run() -> tuple[RunDirectory, BatchRecord, list[dict]]:
    (path,) = Path("runs").iterdir()
    run_directory = RunDirectory(path)
    events = [json.loads(line) for line in run_directory.events.read_text().splitlines()]
    return run_directory, run_directory.read_summary(), events


def require_nothing_started() -> None:
    assert not Path("runs").exists()
    assert list(Path("exports").glob("*")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("executor", ExecutorOptions(workers=3)),
        ("tracking", TrackingOptions(mlflow=False, dvc=False, experiment="other")),
        ("output", OutputOptions(exports="elsewhere")),
        ("release", ReleaseOptions(name="zoo")),
        ("force", True),
    ],
)
def test_jobs_that_disagree_on_the_run_are_refused_by_the_key(folder, name, value):
    with pytest.raises(ConfigError) as caught:
        run_batch([make_job("a"), make_job("b", **{name: value})], [])
    assert str(caught.value) == f"{name}: differs between the jobs of the sweep; it holds for a whole batch"
    require_nothing_started()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExecutorOptions(workers=0), "executor.workers: 0 must be at least 1"),
        (ExecutorOptions(workers=-2), "executor.workers: -2 must be at least 1"),
        (ExecutorOptions(timeout_s=0.0), "executor.timeout_s: 0.0 must be more than 0"),
        (ExecutorOptions(timeout_s=-1.0), "executor.timeout_s: -1.0 must be more than 0"),
        (ExecutorOptions(timeout_s=float("nan")), "executor.timeout_s: nan must be more than 0"),
    ],
)
def test_settings_that_no_executor_can_follow_are_refused(folder, options, message):
    with pytest.raises(ConfigError) as caught:
        run_batch([make_job(executor=options)], [])
    assert str(caught.value) == message
    assert list(folder.iterdir()) == []


def test_an_unsound_job_stops_the_batch_before_anything_is_made(folder):
    with pytest.raises(ConfigError, match="there is no 'Doubels' in worker_models"):
        run_batch([make_job("a"), make_job("b", target="worker_models.Doubels")], [])
    require_nothing_started()


def test_a_job_that_cannot_be_composed_stops_the_batch_before_anything_starts(folder):
    def compose():
        yield make_job("a")
        raise ConfigError("the second one is wrong")

    with pytest.raises(ConfigError, match="the second one is wrong"):
        run_batch(compose(), [])
    require_nothing_started()
    with lock_output(Path("exports")):
        pass


def test_a_sweep_without_any_job_is_a_config_error(folder, capfd):
    code = run(["modelpress", "-m", "+model=glob(nothing_like_it*)", "tracking=off"])
    assert code is ExitCode.CONFIG
    assert "nothing_like_it" in capfd.readouterr().err


def test_a_locked_output_stops_the_batch(folder):
    with lock_output(Path("exports")), pytest.raises(LockedError, match=r"^exports: in use by another run"):
        run_batch([make_job()], [])
    assert not Path("runs").exists()


def test_a_runs_directory_that_cannot_be_made_is_a_storage_error(folder):
    Path("runs").touch()
    with pytest.raises(StorageError, match=r"^runs: File exists; choose another with output\.runs=DIR$"):
        run_batch([make_job()], [])


def test_a_batch_that_is_up_to_date_starts_no_worker_and_says_so(folder, capfd):
    job = make_job()
    publish_export(job.spec)
    before = Path("exports/net/result.json").read_bytes()
    assert run_batch([job], ["+model=net"]) is ExitCode.OK
    run_directory, record, events = read_run()
    assert [(export.id, export.outcome, export.reason) for export in record.exports] == [
        ("net", Outcome.up_to_date, "")
    ]
    assert (record.name, record.command, record.exit_code, record.release) == ("net", ["+model=net"], 0, None)
    assert record.exports[0].num_nodes == 7
    assert [event["event"] for event in events] == ["batch_started", "export_ended", "batch_ended"]
    assert not (run_directory.path / "exports").exists()
    assert Path("exports/net/result.json").read_bytes() == before
    assert "[1/1] up to date net" in capfd.readouterr().out


def test_a_release_gives_its_name_to_the_batch(folder):
    job = make_job(release=ReleaseOptions(name="zoo"))
    publish_export(job.spec)
    run_batch([job], [])
    _, record, _ = read_run()
    assert (record.name, record.release) == ("zoo", "zoo")


@pytest.mark.slow
def test_a_batch_publishes_what_passed_and_keeps_what_failed_under_runs(folder, capfd):
    executor = ExecutorOptions(workers=2, timeout_s=120.0)
    jobs = [
        make_job("good", executor=executor),
        make_job("bad", target="worker_models.Aborts", executor=executor),
    ]
    handler = signal.getsignal(signal.SIGTERM)
    assert run_batch(jobs, []) is ExitCode.EXPORT_FAILED
    assert signal.getsignal(signal.SIGTERM) is handler

    run_directory, record, events = read_run()
    assert [path.name for path in Path("exports").iterdir()] == ["good"]
    assert [path.name for path in Path("metrics").iterdir()] == ["good.json"]
    assert [path.name for path in (run_directory.path / "exports").iterdir()] == ["bad"]

    published = ExportDirectory(Path("exports/good"))
    assert published.read_fingerprint() == take_fingerprint(jobs[0].spec)
    assert published.damaged_files(published.read_result()) == []
    assert run_directory.read_result("good") == published.read_result()
    assert run_directory.read_result("bad").failure.cause == "the worker died of SIGABRT"

    outcomes = {export.id: (export.outcome, export.reason, export.directory) for export in record.exports}
    assert outcomes == {
        "good": (Outcome.passed, "new", "exports/good"),
        "bad": (Outcome.failed, "new", str(run_directory.path / "exports" / "bad")),
    }
    assert record.exit_code == 1
    ended = {event["export"]: (event["outcome"], event["kind"]) for event in events if event["event"] == "export_ended"}
    assert ended == {"good": ("passed", None), "bad": ("failed", "crashed")}
    assert sorted(event["export"] for event in events if event["event"] == "export_started") == ["bad", "good"]
    captured = capfd.readouterr()
    assert captured.err.splitlines()[-2:] == [
        "bad: build: crashed: the worker died of SIGABRT",
        f"  read worker.log: the stack at the crash is in it; see {run_directory.path / 'exports' / 'bad'}/",
    ]


OWN_MODEL = """
name: hangs
source: {_target_: worker_models.IgnoresSigtermAndHangs, seconds: "%s"}
inputs: {x: {shape: [2, 3]}}
"""


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@dataclass
class Hanging:
    """A batch with a worker that hangs, ignores SIGTERM and has a child."""

    process: subprocess.Popen
    descendants: list[psutil.Process]

    def wait_for_the_end(self, but: str = "") -> list[psutil.Process]:
        """Who of the descendants is left after ten seconds."""
        left = [process for process in self.descendants if process.info != but]
        deadline = time.monotonic() + 10
        while any(is_alive(process) for process in left) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [process for process in left if is_alive(process)]


@pytest.fixture
def hanging(folder):
    shutil.copy(Path(__file__).parents[1] / "support" / "worker_models.py", folder)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "hangs.yaml").write_text(OWN_MODEL % f"990.{os.getpid()}")
    arguments = ["--config-dir", "conf", "+model=hangs", "tracking=off"]
    with (folder / "words").open("w") as words:
        process = subprocess.Popen([sys.executable, "-m", "pipeline", *arguments], stdout=words, stderr=words)
    started: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 60
        while not any(found.info == "sleep" for found in started):
            assert time.monotonic() < deadline, (folder / "words").read_text()
            time.sleep(0.05)
            started = []
            for found in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found.info = found.name()
                    started.append(found)
        yield Hanging(process, started)
    finally:
        for found in started:
            with suppress(psutil.NoSuchProcess):
                found.kill()
        process.kill()
        process.wait()


@pytest.mark.slow
def test_workers_die_with_a_batch_that_is_killed(hanging):
    hanging.process.kill()
    assert hanging.process.wait(20) == -signal.SIGKILL
    # What the worker itself started is past helping where nobody was left to end it.
    assert hanging.wait_for_the_end(but="sleep") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
    ],
)
def test_a_second_signal_ends_a_batch_at_once_and_in_order(folder, hanging, number, code):
    # The worker ignores SIGTERM, and would have two seconds.
    for _ in range(2):
        hanging.process.send_signal(number)
        time.sleep(0.5)
    assert hanging.process.wait(20) == code
    assert hanging.wait_for_the_end() == []
    _, record, events = read_run()
    assert [export.outcome for export in record.exports] == [Outcome.cancelled]
    assert record.exit_code == code
    assert events[-1]["event"] == "batch_ended"
    assert "Traceback" not in (folder / "words").read_text()
