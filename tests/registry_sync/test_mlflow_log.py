"""Logging to a real MLflow store, of a batch whose directories are made here."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from batch_data import make_run
from mlflow import MlflowClient
from release_data import make_manifest, make_model

from exporter.errors import FailureKind, SyncError
from exporter.failure_fingerprint import take_failure_fingerprint
from registry_sync import mlflow_log, run_files
from registry_sync import store as store_module
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.release_manifest import ReleaseDirectory
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
    assert bad.data.tags["modelpress.failure.hint"] == "try none"
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


def test_the_model_of_an_export_that_failed_is_evidence_unless_it_is_large(
    store: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=store)
    record = log(run, TrackingOptions(uri=store, experiment="evidence"))
    bad = find(store, "evidence")[f"{record.run_id}/bad"]
    assert {"model.onnx", "report.md", "result.json"} <= {item.path for item in client.list_artifacts(bad.info.run_id)}
    assert "modelpress.files" not in bad.data.tags
    monkeypatch.setattr(run_files, "_MAX_FAILED_MODEL_BYTES", 3)
    log(run, TrackingOptions(uri=store, experiment="too large"))
    bad = find(store, "too large")[f"{record.run_id}/bad"]
    assert "model.onnx" not in {item.path for item in client.list_artifacts(bad.info.run_id)}
    assert bad.data.tags["modelpress.files"] == "not logged for their size: model.onnx in bad"


def test_the_note_compares_with_the_last_batch_on_disk_or_else_in_mlflow(store: str, run: RunDirectory) -> None:
    first = log(run, TrackingOptions(uri=store, experiment="compared"))
    parent = find(store, "compared")[first.run_id]
    place = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts/index.html"
    told = f" · [as a page]({place})\n\nNo earlier batch of this name is known.\n\n"
    assert told in parent.data.tags["mlflow.note.content"]
    result = run.read_result("good")
    for run_id in ("20260102-000000-0000", "20260103-000000-0000"):
        later = RunDirectory(Path("runs") / run_id)
        later.results.mkdir(parents=True)
        later.events.write_text("")
        exports = [dataclasses.replace(first.exports[0], size_bytes=2 * result.size_bytes), first.exports[1]]
        later.write_summary(dataclasses.replace(first, run_id=run_id, exports=exports))
        for name in ("good", "bad"):
            shutil.copy(run.result(name), later.result(name))
        if run_id.startswith("20260103"):
            # As in a fresh checkout.
            shutil.rmtree(run.path)
            shutil.rmtree("runs/20260102-000000-0000")
        log(later, TrackingOptions(uri=store, experiment="compared"))
    notes = {key: entry.data.tags.get("mlflow.note.content", "") for key, entry in find(store, "compared").items()}
    assert f"Changes are since batch {first.run_id}." in notes["20260102-000000-0000"]
    assert "Changes are since batch 20260102-000000-0000." in notes["20260103-000000-0000"]
    # MLflow has the size of the result, which is half of what these summaries say.
    lines = [" ".join(line.split()) for line in notes["20260103-000000-0000"].splitlines()]
    assert "size +100 %" in next(line for line in lines if line.startswith("| [good]"))
    assert "| as before |" in next(line for line in lines if "[bad]" in line)


def test_an_old_release_that_is_logged_late_is_compared_with_the_one_before_it(store: str, run: RunDirectory) -> None:
    for version, created_at in (("1", "2025-12-31T00:00:00.000+00:00"), ("2", "2026-01-01T00:02:00.000+00:00")):
        manifest = make_manifest(version=version, created_at=created_at, models=[make_model("good")])
        directory = ReleaseDirectory(Path("releases") / manifest.title)
        directory.path.mkdir(parents=True)
        directory.write_manifest(manifest)
    run.write_summary(dataclasses.replace(run.read_summary(), name="zoo", release="zoo"))
    record = log(run, TrackingOptions(uri=store, experiment="late"))
    assert "Changes are since release zoo-1." in find(store, "late")[record.run_id].data.tags["mlflow.note.content"]
    assert "release zoo-1</bdi>" in run.page.read_text()


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


def test_a_store_that_cannot_be_opened_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAUSE_S", 0.0)
    options = TrackingOptions(uri="postgresql://me:hunter2@127.0.0.1:1/none", experiment="x")
    with pytest.raises(SyncError) as raised:
        open_store(options)
    assert "postgresql://127.0.0.1:1/none" in str(raised.value)
    assert "hunter2" not in str(raised.value)
