"""The real command on a disk that is too small, beside another batch, and after one that was killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from project import Project, make_environment
from tiny_disk import tiny_disk

from exporter.directory import ExportDirectory

SLOW_MODEL = """
import subprocess
import time
import torch
from torch import nn

class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # In a session of its own: nobody but who looks for it finds it.
        subprocess.Popen(["sleep", "{seconds}"], start_new_session=True)
        time.sleep(60)
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features
"""
CONFIG = """
name: slow
source: {_target_: slow_models.Slow}
inputs:
  features: {shape: [2, 4]}
"""


def check_exports(folder: Path, names: set[str]) -> None:
    assert {path.name for path in (folder / "exports").iterdir()} == names
    for name in names:
        export = ExportDirectory(folder / "exports" / name)
        assert export.damaged_files(export.read_result()) == []


def find_sleepers(seconds: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["cmdline"] == ["sleep", seconds] and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def wait_until(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [24, 48, 60, 70, 200])
def test_a_disk_that_is_too_small_is_told_and_with_room_the_same_command_ends_well(tmp_path: Path, kib: int) -> None:
    (tmp_path / "disk").mkdir()
    with tiny_disk(tmp_path / "disk", f"size={kib}k") as disk:
        command = [*disk.prefix, sys.executable, "-m", "pipeline", "-m", "+model=mlp", "model.seed=1,2", "tracking=off"]

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, env=make_environment({}), capture_output=True, text=True, timeout=300, check=False
            )

        full = run()
        # Two small exports and their records take some 80 KiB.
        possible = {24: {5}, 200: {0}}.get(kib, {0, 5})
        assert full.returncode in possible, full.stdout + full.stderr
        assert "Traceback" not in full.stderr
        assert len(full.stderr.splitlines()) <= 15
        if full.returncode:
            assert "No space left on device" in full.stderr + full.stdout
            assert "run the same command again" in full.stderr
        published = {path.name for path in (disk.view / "exports").iterdir()}
        check_exports(disk.view, published)
        disk.resize("size=10m")
        again = run()
        assert again.returncode == 0, again.stdout + again.stderr
        check_exports(disk.view, {"mlp-seed_1", "mlp-seed_2"})
        assert again.stdout.count("] up to date ") == len(published)
        for path in (disk.view / "runs").iterdir():
            assert (path / "summary.json").exists()


@pytest.mark.slow
def test_a_killed_batch_is_put_in_order_by_the_next_one_and_can_be_logged(folder: Project) -> None:
    seconds = f"9{os.getpid()}"
    (folder.path / "slow_models.py").write_text(SLOW_MODEL.format(seconds=seconds))
    (folder.path / "conf/model").mkdir(parents=True)
    (folder.path / "conf/model/slow.yaml").write_text(CONFIG)
    process = folder.start("--config-dir", "conf", "-m", "+model=mlp,slow", "executor.workers=1", "tracking.dvc=false")
    try:
        wait_until(lambda: find_sleepers(seconds) and "mlp" in folder.published(), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (killed,) = folder.runs()
        assert not (killed / "summary.json").exists()
        done = folder.run("+model=mlp", "tracking.dvc=false")
        assert done.returncode == 0, done.stdout + done.stderr
        assert find_sleepers(seconds) == []
    finally:
        for sleeper in find_sleepers(seconds):
            sleeper.kill()
    assert f"runs/{killed.name} was killed" in done.stdout
    summary = folder.read_json(f"runs/{killed.name}/summary.json")
    outcomes = {export["id"]: export["outcome"] for export in summary["exports"]}
    assert (summary["exit_code"], outcomes) == (137, {"mlp": "passed", "slow": "cancelled"})
    assert folder.outcomes() == {"mlp": "up_to_date"}
    synced = folder.python("-m", "registry_sync", "sync")
    assert synced.returncode == 0, synced.stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("modelpress").experiment_id])
    assert sorted(run.data.tags["modelpress.key"] for run in runs) == [killed.name, f"{killed.name}/mlp"]


@pytest.mark.slow
def test_two_batches_at_once_share_all_but_their_exports(folder: Project) -> None:
    processes = [
        folder.start("+model=mlp", f"output.exports={name}", f"id={name}", "tracking.dvc=false") for name in ("a", "b")
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        assert "behind" not in out
    for name in ("a", "b"):
        export = ExportDirectory(folder.path / name / name)
        assert export.damaged_files(export.read_result()) == []
    assert [path for path in folder.runs() if not (path / "mlflow.json").exists()] == []
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("modelpress").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.slow
def test_an_export_needs_neither_a_home_nor_a_place_for_temporary_files() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, tiny_disk(Path(folder), "size=20m") as disk:
        for place in ("/tmp", "/var/tmp"):
            disk.mount("-t", "tmpfs", "-o", "ro", "tmpfs", place)
        environment = make_environment({"HOME": "/nowhere", "TMPDIR": "/nowhere"})
        command = [*disk.prefix, sys.executable, "-m", "pipeline", "+model=mlp", "tracking.dvc=false"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        check_exports(disk.view, {"mlp"})
