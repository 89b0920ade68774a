"""Logging to a real MLflow store, of a batch whose directories are made here."""

import shutil
from pathlib import Path

import pytest
from batch_data import make_run
from mlflow import MlflowClient

from exporter.errors import FailureKind, SyncError
from exporter.failure_fingerprint import take_failure_fingerprint
from registry_sync import mlflow_log
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.store import open_store
from registry_sync.tags import KEY_TAG


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: making the tables takes most of the time."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path)


def log(run: RunDirectory, options: TrackingOptions) -> BatchRecord:
    record = run.read_summary()
    mlflow_log.log_batch(run, record, options)
    return record


def find(store: str, experiment: str) -> dict[str, object]:
    client = MlflowClient(tracking_uri=store)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {entry.data.tags[KEY_TAG]: entry for entry in found}


def test_a_batch_logged_twice_is_there_once(store: str, run: RunDirectory) -> None:
    options = TrackingOptions(uri=store, experiment="twice")
    record = log(run, options)
    first = find(store, "twice")
    log(run, options)
    assert {key: entry.info.run_id for key, entry in find(store, "twice").items()} == {
        key: entry.info.run_id for key, entry in first.items()
    }
    assert set(first) == {record.run_id, f"{record.run_id}/good", f"{record.run_id}/bad"}


def test_a_failed_export_is_a_failed_run_with_kind_and_cause(store: str, run: RunDirectory) -> None:
    record = log(run, TrackingOptions(uri=store, experiment="failed"))
    runs = find(store, "failed")
    bad = runs[f"{record.run_id}/bad"]
    assert bad.info.status == "FAILED"
    assert bad.data.tags["modelpress.failure.kind"] == "parity_failed"
    assert bad.data.tags["modelpress.failure.cause"] == "3 of 4 elements"
    client = MlflowClient(tracking_uri=store)
    assert "repro/repro.py" in [item.path for item in client.list_artifacts(bad.info.run_id, "repro")]
    fingerprint = take_failure_fingerprint(FailureKind.parity_failed, "3 of 4 elements")
    assert bad.data.tags["modelpress.failure.fingerprint"] == fingerprint
    assert runs[record.run_id].info.status == "FAILED"
    good = runs[f"{record.run_id}/good"]
    assert good.info.status == "FINISHED"
    # Only a pass was rescued.
    assert good.data.tags["modelpress.rescued_by"] == "no_optimize"
    assert "modelpress.rescued_by" not in bad.data.tags


def test_a_log_that_was_cut_off_is_resumed(store: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrackingOptions(uri=store, experiment="resumed")

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", fail)
        with pytest.raises(KeyboardInterrupt):
            log(run, options)
    half = find(store, "resumed")
    assert {entry.info.status for entry in half.values()} == {"RUNNING"}
    log(run, options)
    whole = find(store, "resumed")
    assert set(half) < set(whole)
    assert "RUNNING" not in {entry.info.status for entry in whole.values()}
    assert all(whole[key].info.run_id == entry.info.run_id for key, entry in half.items())


def test_files_replaced_by_a_later_run_are_not_logged_as_this_runs(store: str, run: RunDirectory) -> None:
    shutil.rmtree("exports/good")
    record = log(run, TrackingOptions(uri=store, experiment="replaced"))
    good = find(store, "replaced")[f"{record.run_id}/good"]
    assert good.data.tags["modelpress.files"].startswith("replaced by a later run")
    client = MlflowClient(tracking_uri=store)
    assert [item.path for item in client.list_artifacts(good.info.run_id)] == ["good.json"]


def test_a_store_that_cannot_be_opened_is_told_without_its_password(tmp_path: Path) -> None:
    options = TrackingOptions(uri="postgresql://me:hunter2@127.0.0.1:1/none", experiment="x")
    with pytest.raises(SyncError) as raised:
        open_store(options)
    assert "postgresql://127.0.0.1:1/none" in str(raised.value)
    assert "hunter2" not in str(raised.value)
