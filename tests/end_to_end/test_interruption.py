"""Ctrl-C, SIGTERM, a dead MLflow server, a held lock, a terminal that cannot show our text."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from project import Project, make_environment, stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_batch_keeps_what_is_finished_and_cancels_the_rest(
    folder: Project, number: signal.Signals, code: int
) -> None:
    folder.add_slow_model()
    process = folder.start("--config-dir", "conf", "-m", "+model=mlp,slow", "tracking=off", "executor.workers=1")
    _wait_until(lambda: "slow" in _workers(folder) and "mlp" in folder.published(), process)
    begin = time.monotonic()
    returned, _, err = stop(process, number)
    assert returned == code
    assert time.monotonic() - begin < 15
    assert "Traceback" not in err
    assert folder.outcomes() == {"mlp": "passed", "slow": "cancelled"}
    assert folder.published() == {"mlp"}
    # Python's resource tracker goes when it hears of its parent's end.
    _wait_until(lambda: _descendants_in(folder.path) == [], None)


def test_a_second_run_on_the_same_output_is_refused_by_name(folder: Project) -> None:
    folder.add_slow_model()
    process = folder.start("--config-dir", "conf", "+model=slow", "tracking=off")
    _wait_until((folder.path / ".exports.lock.json").exists, process)
    done = folder.run("+model=mlp", "tracking=off")
    stop(process, signal.SIGKILL)
    assert done.returncode == 4
    assert f"in use by another run (process {process.pid} on {socket.gethostname()})" in done.stderr
    # The kernel let go of the lock, and the workers went with their parent.
    _wait_until(lambda: _descendants_in(folder.path) == [], None)
    assert folder.run("+model=mlp", "tracking=off").returncode == 0


def test_a_dead_mlflow_server_costs_a_line_and_sync_catches_up(folder: Project) -> None:
    uri = f"http://someone:hunter2canary@127.0.0.1:{_unused_port()}"
    done = folder.run("+model=mlp", "tracking=server", f"tracking.uri={uri}", "tracking.dvc=false")
    assert done.returncode == 6, done.stdout + done.stderr
    assert folder.published() == {"mlp"}
    assert "catch up with: python -m registry_sync sync runs/" in done.stdout
    store = f"sqlite:///{folder.path}/later.db"
    for _ in range(2):
        synced = folder.python("-m", "registry_sync", "sync", "--tracking-uri", store, str(folder.runs()[0]))
        assert synced.returncode == 0, synced.stderr
    client = MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("modelpress").experiment_id])
    assert sorted(run.data.tags["modelpress.kind"] for run in runs) == ["batch", "export"]
    for path in (path for path in folder.path.rglob("*") if path.is_file()):
        assert b"hunter2canary" not in path.read_bytes(), path
    assert "hunter2canary" not in done.stdout + done.stderr


def test_output_that_cannot_be_written_is_an_environment_error(folder: Project) -> None:
    (folder.path / "taken").write_text("a file")
    done = folder.run("+model=mlp", "tracking=off", "output.exports=taken/exports")
    assert done.returncode == 5
    assert "taken/exports" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "redirection",
    [">&-", "> /dev/full", "| head -c 1 > /dev/null"],
    ids=["closed stdout", "full device", "reader that goes away"],
)
def test_an_export_does_not_depend_on_who_reads_its_output(folder: Project, redirection: str) -> None:
    command = f"set -o pipefail; {sys.executable} -m pipeline +model=mlp tracking=off {redirection}"
    environment = make_environment({"LC_ALL": "C", "TERM": "dumb", "PYTHONIOENCODING": "ascii"})
    subprocess.run(["bash", "-c", command], cwd=folder.path, env=environment, check=True, timeout=120)
    assert folder.outcomes() == {"mlp": "passed"}


def _workers(project: Project) -> set[str]:
    return {path.parent.name for path in project.path.glob("runs/*/exports/*/current_step")}


def _descendants_in(path: Path) -> list[str]:
    """Processes that work in a folder and are no zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def _wait_until(condition, process: subprocess.Popen[str] | None, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def _unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_output_on_two_file_systems_is_refused_before_anything_starts(folder: Project) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == folder.path.stat().st_dev:
        pytest.skip("no second file system here")
    exports = Path(tempfile.mkdtemp(dir=other)) / "exports"
    done = folder.run("+model=mlp", "tracking=off", f"output.exports={exports}")
    shutil.rmtree(exports.parent)
    assert done.returncode == 5
    assert "are on different file systems" in done.stderr


def test_metrics_that_cannot_be_written_are_told_before_anything_starts(folder: Project) -> None:
    (folder.path / "taken").write_text("a file")
    done = folder.run("+model=mlp", "tracking=off", "output.metrics=taken/metrics")
    assert done.returncode == 5
    assert "taken/metrics" in done.stderr
    assert not folder.published()


def test_a_server_that_never_answers_costs_no_more_than_the_budget(folder: Project) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        begin = time.monotonic()
        done = folder.run("+model=mlp", "tracking=server", f"tracking.uri={uri}", "tracking.budget_s=3")
        took = time.monotonic() - begin
    assert done.returncode == 6
    assert re.search(r"MLflow is behind: .*MLflow did not answer in time", done.stdout)
    # The export itself takes a few seconds; a client of MLflow's own accord would wait for minutes.
    assert took < 60
