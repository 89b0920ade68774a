"""The registry in a real Postgres, written to directly and through an MLflow server."""

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow_server import find_port, run_tracking_server
from onnx_exports import expect, make_feeds, make_onnx_run
from postgres import PASSWORD, Postgres, find_binaries, run_postgres
from project import make_environment
from release_batch import make_options

from exporter.directory import ExportDirectory
from exporter.errors import SyncError
from registry_sync import mlflow_log, store
from registry_sync.__main__ import main
from registry_sync.bounded import Budget
from registry_sync.options import TrackingOptions
from registry_sync.record import RunDirectory
from registry_sync.store import open_store
from registry_sync.tags import KEY_TAG
from registry_sync.tracker import Tracker

BINARIES = find_binaries()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARIES is None, reason="no Postgres: /usr/lib/postgresql/*/bin/initdb"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="no psycopg: pip install 'psycopg[binary]'"),
    # MLflow's own, as mlflow.pyfunc is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]

RUN = "20260101-000000-abcd"
KEYS = [RUN, f"{RUN}/bad", f"{RUN}/good"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    assert BINARIES is not None
    with run_postgres(BINARIES) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    monkeypatch.chdir(tmp_path)
    yield make_onnx_run(tmp_path)
    mlflow.set_tracking_uri(None)


def require_one_of_each(uri: str) -> str:
    """Exactly one run and one model of each, finished and linked; returns the model's id."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("modelpress").experiment_id
    runs = {entry.data.tags[KEY_TAG]: entry for entry in client.search_runs([experiment])}
    assert sorted(runs) == KEYS
    assert [runs[key].info.status for key in KEYS] == ["FAILED", "FAILED", "FINISHED"]
    (model,) = client.search_logged_models([experiment])
    assert model.status == "READY"
    good = client.get_run(model.source_run_id)
    assert [output.model_id for output in good.outputs.model_outputs] == [model.model_id]
    return str(model.model_id)


def require_answers(model_uri: str) -> None:
    """The published bytes, and what they say of a dict of inputs."""
    folder = Path(mlflow.artifacts.download_artifacts(model_uri))
    result = ExportDirectory(Path("exports/good")).read_result()
    back = {file.path: hashlib.sha256((folder / file.path).read_bytes()).hexdigest() for file in result.files}
    assert back == {file.path: file.sha256 for file in result.files}
    answers = mlflow.pyfunc.load_model(model_uri).predict(make_feeds())
    for name, value in expect(make_feeds()).items():
        np.testing.assert_array_equal(answers[name], value)
    assert len(mlflow.onnx.load_model(model_uri).graph.node) == 5


@pytest.mark.parametrize("way", ["direct", "server"])
def test_a_release_is_logged_registered_promoted_and_rolled_back(
    postgres: Postgres, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    database = postgres.make_database(way)
    if way == "direct":
        release(database, run, monkeypatch)
    else:
        with run_tracking_server(tmp_path, database) as server:
            release(server.uri, run, monkeypatch)
    said = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert said == []


def release(uri: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = TrackingOptions(uri=uri, dvc=False)
    report = Tracker(tracking, make_options(version="1")).finish(run, run.read_summary())
    assert not report.is_behind, report.lines
    assert PASSWORD not in "\n".join(report.lines)
    mlflow_log.log_batch(run, run.read_summary(), tracking)
    require_one_of_each(uri)
    # As a default it outlasts the test, unless it is set back; and so does the variable that it leaves.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    require_answers("models:/good@candidate")
    command = ["--tracking-uri", uri]
    # One of its two exports has failed.
    assert main(["promote", "zoo", "--partial", *command]) == 0
    require_answers("models:/good@champion")
    assert main(["rollback", "zoo", "--registry-only", *command]) == 0
    aliases = MlflowClient(tracking_uri=uri).get_registered_model("good").aliases
    # A number from a database, and a text from a server.
    assert {name: str(version) for name, version in aliases.items()} == {"candidate": "1"}


def test_three_at_once_on_a_database_that_is_empty(postgres: Postgres, run: RunDirectory, tmp_path: Path) -> None:
    uri = postgres.make_database("three")
    command = [sys.executable, "-m", "registry_sync", "sync", f"runs/{RUN}", "--tracking-uri", uri]
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, env=make_environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert PASSWORD not in out + err
    require_one_of_each(uri)


def test_nobody_hears_of_what_the_driver_says_of_something_that_is_there_already(
    postgres: Postgres, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = TrackingOptions(uri=postgres.make_database("again"))

    def fail(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Before the model is linked to its run, and after its metrics are there.
        patch.setattr(MlflowClient, "log_outputs", fail)
        with pytest.raises(KeyboardInterrupt):
            mlflow_log.log_batch(run, run.read_summary(), options)
    mlflow_log.log_batch(run, run.read_summary(), options)
    require_one_of_each(str(options.uri))
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_database_that_lets_nobody_in_is_told_before_the_budget_is_spent(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself would try for more than a minute and a half, at each of our tries."""
    monkeypatch.setattr(store, "_PAUSE_S", 0.0)
    right = postgres.make_database("closed")
    wrong = right.replace(PASSWORD, "hunter2wrong")
    nobody = right.replace(str(postgres.port), str(find_port()))
    missing = right.replace("/closed", "/missing")
    for uri, words in (
        (wrong, 'password authentication failed for user "me"'),
        (nobody, "Connection refused"),
        (missing, 'database "missing" does not exist'),
    ):
        with pytest.raises(SyncError) as raised:
            open_store(TrackingOptions(uri=uri), Budget(60))
        assert words in str(raised.value)
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
