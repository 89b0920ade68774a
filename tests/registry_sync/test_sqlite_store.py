"""A new store in a file, made by processes that race for it, or that are killed at it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

OPEN = """
import sys
from registry_sync.store import open_store
from registry_sync.options import TrackingOptions
print("imported", flush=True)
sys.stdin.readline()
store = open_store(TrackingOptions(uri=sys.argv[1]))
store.client.create_run(store.experiment_id)
"""


def start(uri: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "imported\n", process.stderr.read()
    return process


def count_runs(uri: str) -> int:
    client = MlflowClient(tracking_uri=uri)
    return len(client.search_runs([client.get_experiment_by_name("modelpress").experiment_id]))


@pytest.mark.slow
def test_processes_that_find_no_store_make_one_together(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    processes = [start(uri) for _ in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert count_runs(uri) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.slow
def test_a_store_that_was_cut_off_as_it_was_made_is_made_anew(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    process = start(uri)
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.rglob("*.db")) < 100_000:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(uri)
    _, err = again.communicate("go\n", timeout=120)
    assert again.returncode == 0, err
    assert count_runs(uri) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
