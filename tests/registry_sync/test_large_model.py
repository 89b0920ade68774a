"""A model larger than protobuf's 2 GiB, which must pass through without being loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch_data import make_run
from mlflow import MlflowClient
from mlflow_server import Server
from onnx_exports import record_export
from project import make_environment

from exporter.directory import ExportDirectory

pytestmark = pytest.mark.slow

GIB = 2**30
SIZE = 2 * GIB + 2**20
# Peaks are of the process since its start (VmHWM), and reading the batch and importing MLflow set the mark first.
PROGRAM = """
import re, sys
from pathlib import Path
from registry_sync import mlflow_log
from registry_sync.bounded import Budget
from registry_sync.options import TrackingOptions
from registry_sync.record import RunDirectory
from registry_sync.store import open_store

def read_peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

options = TrackingOptions(uri=sys.argv[1], experiment="large")
small, large = sorted(Path("runs").glob("*"))
for path in (small, large):
    run = RunDirectory(path)
    before = read_peak_kib()
    mlflow_log.log_batch(run, run.read_summary(), options, Budget(600))
print(read_peak_kib() - before)
"""


@pytest.mark.parametrize("kind", ["file", "server"])
def test_a_model_of_two_gib_costs_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db" if kind == "file" else server.uri
    run = make_run(tmp_path)
    # The same batch once more, with a small model, to have done everything before.
    shutil.copytree(run.path, "runs/20250101-000000-abcd")
    summary = Path("runs/20250101-000000-abcd/summary.json")
    summary.write_text(
        summary.read_text().replace("20260101-000000-abcd", "20250101-000000-abcd").replace("exports/", "small/")
    )
    shutil.copytree("exports", "small")
    directory = ExportDirectory(Path("exports/good"))
    with directory.model_data.open("wb") as file:
        file.truncate(SIZE)
    record_export(tmp_path, run, directory)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri],
        env=make_environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )
    assert done.returncode == 0, done.stderr
    grown_kib = int(done.stdout)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("large").experiment_id
    large, _ = sorted(
        client.search_logged_models([experiment]), key=lambda m: m.tags["modelpress.run_id"], reverse=True
    )
    root = Path("mlruns") if kind == "file" else server.folder / "files"
    # A server is shared with other tests.
    (stored,) = (path for path in root.rglob("model.onnx.data") if path.stat().st_size == SIZE)
    assert large.status == "READY"
    stored.unlink()
    assert grown_kib < 64 * 1024
