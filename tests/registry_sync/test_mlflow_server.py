"""A real MLflow server, and what can go wrong on the way to it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fault_proxy import Fault, FaultProxy, Request, run_proxy
from mlflow import MlflowClient
from mlflow_server import Server, find_port, run_scoring_server
from onnx_exports import expect, make_feeds, make_onnx_run
from project import Project, make_environment

from exporter.directory import ExportDirectory
from exporter.errors import SyncError
from registry_sync import mlflow_log, store
from registry_sync.bounded import Budget
from registry_sync.logged_model import require_model
from registry_sync.options import TrackingOptions
from registry_sync.record import RunDirectory
from registry_sync.registered_version import register_version
from registry_sync.tags import KEY_TAG

pytestmark = [
    pytest.mark.slow,
    # MLflow's own, as mlflow.pyfunc is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]

RUN = "20260101-000000-abcd"
KEYS = [RUN, f"{RUN}/bad", f"{RUN}/good"]
WRITES = ("POST", "PUT", "PATCH")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "_PAUSE_S", 0.0)
    return make_onnx_run(tmp_path)


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with run_proxy(server.port) as proxy:
        yield proxy


def log(run: RunDirectory, uri: str, experiment: str) -> None:
    mlflow_log.log_batch(run, run.read_summary(), TrackingOptions(uri=uri, experiment=experiment))


def require_one_of_each(server: Server, experiment: str) -> str:
    """Exactly one run and one model of each, finished, and linked once; returns the model's id."""
    client = MlflowClient(tracking_uri=server.uri)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    runs = client.search_runs([experiment_id])
    assert sorted(entry.data.tags[KEY_TAG] for entry in runs) == KEYS
    by_key = {entry.data.tags[KEY_TAG]: entry for entry in runs}
    assert {key: entry.info.status for key, entry in by_key.items()} == dict(
        zip(KEYS, ("FAILED", "FAILED", "FINISHED"), strict=True)
    )
    parents = {entry.data.tags.get("mlflow.parentRunId") for entry in runs}
    assert parents == {None, by_key[RUN].info.run_id}
    (model,) = client.search_logged_models([experiment_id])
    assert model.status == "READY"
    # Not from the search, whose rows do not have them all.
    good = client.get_run(by_key[f"{RUN}/good"].info.run_id)
    assert [output.model_id for output in good.outputs.model_outputs] == [model.model_id]
    assert model.source_run_id == good.info.run_id
    assert {metric.key for metric in model.metrics} >= {"size_bytes", "duration_s"}
    return str(model.model_id)


def test_a_batch_with_its_times_and_a_model_whose_bytes_come_back(
    server: Server, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(run, server.uri, "whole")
    model_id = require_one_of_each(server, "whole")
    client = MlflowClient(tracking_uri=server.uri)
    experiment_id = client.get_experiment_by_name("whole").experiment_id
    parent = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{RUN}'")[0]
    assert (parent.info.start_time, parent.info.end_time) == (1_767_225_600_000, 1_767_225_660_000)
    assert "| [good](#/experiments/" in parent.data.tags["mlflow.note.content"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    result = ExportDirectory(Path("exports/good")).read_result()
    back = {file.path: hashlib.sha256((folder / file.path).read_bytes()).hexdigest() for file in result.files}
    assert back == {file.path: file.sha256 for file in result.files}
    answers = mlflow.pyfunc.load_model(f"models:/{model_id}").predict(make_feeds())
    for name, value in expect(make_feeds()).items():
        np.testing.assert_array_equal(answers[name], value)
    assert len(mlflow.onnx.load_model(f"models:/{model_id}").graph.node) == 5


def test_the_model_is_served(server: Server, run: RunDirectory, tmp_path: Path) -> None:
    log(run, server.uri, "served")
    model_id = require_one_of_each(server, "served")
    feeds = make_feeds()
    body = json.dumps({"inputs": {name: value.tolist() for name, value in feeds.items()}}).encode()
    with run_scoring_server(f"models:/{model_id}", server.uri, tmp_path) as address:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            answers = json.load(reply)["predictions"]
    for name, value in expect(feeds).items():
        np.testing.assert_array_equal(np.array(answers[name], value.dtype), value)


@pytest.mark.parametrize("fault", [Fault.done_then_500, Fault.done_then_dropped, Fault.done_twice])
def test_no_lost_or_repeated_reply_makes_anything_twice(
    server: Server, proxy: FaultProxy, run: RunDirectory, fault: Fault
) -> None:
    """Every write is stored, and nobody hears of it; when it is repeated, the reply is heard."""

    def lose(request: Request) -> Fault:
        is_write = request.method in WRITES and "/search" not in request.path
        return fault if is_write and request.repeat == 0 else Fault.none

    proxy.rule = lose
    log(run, proxy.uri, fault.name)
    require_one_of_each(server, fault.name)
    num_repeated = sum(1 for request in proxy.requests if request.repeat)
    # What creates something is not repeated, but looked for.
    assert num_repeated > (0 if fault is Fault.done_twice else 20)
    assert [request for request in proxy.requests if request.repeat and "create" in request.path] == []


def test_a_slow_server_costs_the_budget_and_the_next_sync_goes_on(
    server: Server, proxy: FaultProxy, run: RunDirectory
) -> None:
    options = TrackingOptions(uri=proxy.uri, experiment="slow")
    store.open_store(options)
    proxy.rule = lambda _: Fault.slow
    # Enough for some of the requests, and by far not for all of them.
    budget = Budget(2.0)
    with pytest.raises(SyncError, match="did not answer in time"):
        mlflow_log.log_batch(run, run.read_summary(), options, budget)
    client = MlflowClient(tracking_uri=server.uri)
    experiment_id = client.get_experiment_by_name("slow").experiment_id
    begun = {entry.info.run_id for entry in client.search_runs([experiment_id])}
    proxy.rule = lambda _: Fault.none
    log(run, proxy.uri, "slow")
    require_one_of_each(server, "slow")
    assert begun
    assert begun <= {entry.info.run_id for entry in client.search_runs([experiment_id])}


def test_a_version_whose_reply_is_lost_is_registered_once(
    server: Server, proxy: FaultProxy, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(run, proxy.uri, "version")
    opened = store.open_store(TrackingOptions(uri=proxy.uri, experiment="version"))
    model = require_model(opened, ExportDirectory(Path("exports/good")))
    lost = Fault.done_then_500
    proxy.rule = lambda request: lost if "create" in request.path and request.repeat == 0 else Fault.none
    assert register_version(opened, "lost", model, {}).version == "1"
    assert len(opened.client.search_model_versions("name = 'lost'")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert len(mlflow.onnx.load_model("models:/lost/1").graph.node) == 5


def test_a_server_in_trouble_now_and_then_is_asked_again(server: Server, proxy: FaultProxy, run: RunDirectory) -> None:
    faults = [Fault.refused_429, Fault.dropped]
    proxy.rule = lambda request: faults[request.repeat] if request.repeat < len(faults) else Fault.none
    log(run, proxy.uri, "trouble")
    require_one_of_each(server, "trouble")


def sync(uri: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "registry_sync", "sync", f"runs/{RUN}", "--tracking-uri", uri],
        cwd=folder,
        env=make_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def use_experiment(run: RunDirectory, name: str) -> None:
    """Of a sync in another process, which reads it from the summary."""
    data = json.loads(run.summary.read_text())
    data["tracking"]["experiment"] = name
    run.summary.write_text(json.dumps(data))


def test_killed_at_any_request_and_run_again(
    server: Server, proxy: FaultProxy, run: RunDirectory, tmp_path: Path
) -> None:
    use_experiment(run, "killed")
    process: subprocess.Popen[str]
    kill_at = 4

    def kill(request: Request) -> Fault:
        if request.number == kill_at:
            os.kill(process.pid, signal.SIGKILL)
            # The server hears of every second one.
            return Fault.done_then_dropped if kill_at % 2 else Fault.dropped
        return Fault.none

    proxy.rule = kill
    num_kills = 0
    while True:
        proxy.requests.clear()
        process = sync(proxy.uri, tmp_path)
        out, err = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            break
        num_kills += 1
        kill_at += 3
    assert process.returncode == 0, out + err
    assert num_kills > 3
    require_one_of_each(server, "killed")


def test_two_at_once(server: Server, proxy: FaultProxy, run: RunDirectory, tmp_path: Path) -> None:
    use_experiment(run, "two")
    # So that both are at it for seconds.
    proxy.rule = lambda _: Fault.slow
    processes = [sync(proxy.uri, tmp_path) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    require_one_of_each(server, "two")
    # Nor was there more for a moment, which the last one would have deleted.
    assert sum(1 for request in proxy.requests if request.path.endswith("runs/create")) == len(KEYS)


def test_three_at_once_on_a_database_that_is_not_there_yet(run: RunDirectory, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fresh.db"
    processes = [sync(uri, tmp_path) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("modelpress").experiment_id
    assert sorted(entry.data.tags[KEY_TAG] for entry in client.search_runs([experiment])) == KEYS
    assert len(client.search_logged_models([experiment])) == 1


def test_a_batch_whose_server_is_down_is_caught_up_with(server: Server, folder: Project) -> None:
    """The exports are fine, the code is 6, and no password is anywhere."""
    nobody = f"http://me:hunter2@127.0.0.1:{find_port()}"
    done = folder.run("+model=mlp", "tracking=server", f"tracking.uri={nobody}", "tracking.experiment=down")
    assert done.returncode == 6, done.stdout + done.stderr
    assert folder.published() == {"mlp"}
    said = done.stdout + done.stderr
    assert "MLflow is behind: http://127.0.0.1:" in said
    assert "Connection refused" in said
    (run,) = folder.runs()
    assert f"python -m registry_sync sync runs/{run.name}" in said
    with_password = server.uri.replace("//", "//me:hunter2@")
    done = folder.python("-m", "registry_sync", "sync", "--tracking-uri", with_password)
    assert done.returncode == 0, done.stderr
    said += done.stdout + done.stderr
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("down")
    assert [model.name for model in client.search_logged_models([experiment.experiment_id])] == ["mlp"]
    assert "hunter2" not in said
    for root in (folder.path, server.folder):
        assert [path for path in root.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()] == []
