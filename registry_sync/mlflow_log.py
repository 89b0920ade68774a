"""Logs a batch to MLflow: one run for the batch, and under it one for each export that was carried out.

Every run is found again by a tag, so that logging a batch twice, or once more after a crash, changes nothing.
"""

import logging
import os
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

# Read by MLflow when it is imported. Its default is seven retries of two minutes each for a server that is down.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from exporter.directory import ExportDirectory, hash_parts, write_json
from exporter.errors import SyncError
from exporter.plain_data import DataError, flatten, to_plain
from exporter.result import ExportResult
from registry_sync.commands import show_command
from registry_sync.metrics import collect_metrics, collect_step_metrics
from registry_sync.options import TrackingOptions
from registry_sync.record import ENDED, BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.redaction import redact
from registry_sync.summary import render_summary

__all__ = ["default_uri", "log_batch", "open_store"]

KEY_TAG = "modelpress.key"
_MAX_PARAM = 6000
_MAX_TAG = 8000


def default_uri() -> str:
    """Sqlite in the working directory, by its absolute path: a relative one means another file elsewhere."""
    return f"sqlite:///{Path('mlflow.db').resolve()}"


def open_store(options: TrackingOptions) -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment, which is created if missing.

    A new sqlite file gets its tables here, in one process, before anyone else can write to it: two processes that
    do so at once leave it broken.

    Raises:
        SyncError: The store cannot be reached or opened.
    """
    return _open_store(options.uri or default_uri(), options.experiment)


@cache
def _open_store(uri: str, name: str) -> tuple[MlflowClient, str]:
    # Its words about new tables, and about each attempt to open a store, are not for our users.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).is_dir():
        # MLflow would try for minutes.
        raise SyncError(f"{uri}: is a directory")
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return client, experiment.experiment_id
        # MLflow's default is relative to whatever directory it happens to run in.
        location = Path("mlruns").resolve().as_uri() if uri.startswith("sqlite:") else None
        return client, client.create_experiment(name, artifact_location=location)
    except Exception as error:  # sqlalchemy's and requests' errors come through as they are
        raise SyncError(redact(f"{uri}: {error}")) from error


def log_batch(run: RunDirectory, record: BatchRecord, options: TrackingOptions) -> str:
    """Log a batch and its exports; what is already there is left as it is.

    Returns:
        A line for the user: where to look.

    Raises:
        SyncError: MLflow did not take it.
    """
    client, experiment_id = open_store(options)
    try:
        parent = _find_or_create(
            client, experiment_id, record.run_id, record.name, record.started_at, _batch_tags(record)
        )
        parent_id = parent.info.run_id
        for export in record.exports:
            if export.outcome in ENDED:
                _log_export(client, experiment_id, parent_id, run, record, export)
        if parent.info.status == "RUNNING":
            _log_summary(client, parent_id, run, record)
        write_json(run.mlflow_marker, {"run_id": parent_id, "experiment_id": experiment_id})
    except MlflowException as error:
        raise SyncError(redact(str(error))) from error
    return _tell_where(options, experiment_id)


def _log_summary(client: MlflowClient, run_id: str, run: RunDirectory, record: BatchRecord) -> None:
    counts = {f"num_{outcome.value}": record.count(outcome) for outcome in Outcome}
    _log_metrics(client, run_id, {**counts, "duration_s": record.duration_s}, record.ended_at)
    client.set_tag(run_id, "mlflow.note.content", _cut(render_summary(record)))
    client.log_artifact(run_id, str(run.summary))
    client.log_artifact(run_id, str(run.events))
    status = "FAILED" if record.count(Outcome.failed) + record.count(Outcome.unproven) else "FINISHED"
    client.set_terminated(run_id, status=status, end_time=_milliseconds(record.ended_at))


def _log_export(
    client: MlflowClient,
    experiment_id: str,
    parent_id: str,
    run: RunDirectory,
    record: BatchRecord,
    export: ExportRecord,
) -> None:
    result = run.read_result(export.id)
    key = f"{record.run_id}/{export.id}"
    tags = {**_export_tags(record, export, result), "mlflow.parentRunId": parent_id}
    child = _find_or_create(client, experiment_id, key, export.id, result.started_at, tags)
    child_id = child.info.run_id
    if child.info.status != "RUNNING":
        return
    params = [
        Param(_clean_key(name), str(value)[:_MAX_PARAM]) for name, value in flatten(to_plain(result.spec)).items()
    ]
    client.log_batch(child_id, params=params)
    _log_metrics(client, child_id, collect_metrics(result) | collect_step_metrics(result), result.ended_at)
    directory = ExportDirectory(Path(export.directory))
    if _is_still_there(directory, result):
        client.set_tag(child_id, "mlflow.note.content", _cut(directory.report.read_text(encoding="utf-8")))
        client.log_artifacts(child_id, str(directory.path))
    else:
        client.set_tag(child_id, "modelpress.files", "replaced by a later run before they were logged")
        client.log_artifact(child_id, str(run.result(export.id)))
    status = "FINISHED" if export.outcome is Outcome.passed else "FAILED"
    client.set_terminated(child_id, status=status, end_time=_milliseconds(result.ended_at))


def _find_or_create(
    client: MlflowClient, experiment_id: str, key: str, name: str, started_at: str, tags: dict[str, str]
) -> Run:
    """The run with this key; a new one is RUNNING until all of it is logged, so that a broken one is resumed."""
    found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if found:
        return found[0]
    all_tags = {KEY_TAG: key, "mlflow.runName": name, "mlflow.source.name": "modelpress", **tags}
    return client.create_run(experiment_id, start_time=_milliseconds(started_at), tags=all_tags)


def _batch_tags(record: BatchRecord) -> dict[str, str]:
    tags = {
        "modelpress.kind": "batch",
        "modelpress.run_id": record.run_id,
        "modelpress.command": _cut(" ".join(record.command)),
        "modelpress.exit_code": str(record.exit_code),
        "mlflow.source.git.commit": record.git_commit,
    }
    if record.release:
        tags["modelpress.release"] = record.release
    return {**tags, **_version_tags(record.versions)}


def _export_tags(record: BatchRecord, export: ExportRecord, result: ExportResult) -> dict[str, str]:
    tags = {
        "modelpress.kind": "export",
        "modelpress.run_id": record.run_id,
        "modelpress.export": export.id,
        "modelpress.model": export.model,
        "modelpress.outcome": export.outcome.value,
        "modelpress.reason": export.reason,
        "modelpress.fingerprint": _read_fingerprint(Path(export.directory)),
        "mlflow.source.git.commit": record.git_commit,
    }
    if export.failure is not None:
        tags["modelpress.failure.step"] = str(export.failure.step or "")
        tags["modelpress.failure.kind"] = export.failure.kind.value
        tags["modelpress.failure.cause"] = export.failure.cause
        tags["modelpress.failure.fingerprint"] = export.failure.fingerprint
    if result.rescued_by:
        tags["modelpress.rescued_by"] = ", ".join(result.rescued_by)
    return {**tags, **_version_tags(result.versions)}


def _version_tags(versions: dict[str, str]) -> dict[str, str]:
    return {f"version.{name}": version for name, version in versions.items()}


def _read_fingerprint(directory: Path) -> str:
    try:
        return hash_parts(ExportDirectory(directory).read_fingerprint())
    except (OSError, DataError):
        return ""


def _is_still_there(directory: ExportDirectory, result: ExportResult) -> bool:
    try:
        return directory.read_result() == result
    except (OSError, DataError):
        return False


def _log_metrics(client: MlflowClient, run_id: str, metrics: dict[str, Any], at: str) -> None:
    timestamp = _milliseconds(at)
    client.log_batch(run_id, metrics=[Metric(name, float(value), timestamp, 0) for name, value in metrics.items()])


def _cut(text: str) -> str:
    """As much as a tag holds."""
    rest = "\n\n(cut here; the whole is among the files)"
    return text if len(text) <= _MAX_TAG else text[: _MAX_TAG - len(rest)] + rest


def _clean_key(key: str) -> str:
    """MLflow takes letters, digits and a few signs in a key, 250 at the most."""
    return re.sub(r"[^\w\-. /:]", "_", key)[:250]


def _milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


def _tell_where(options: TrackingOptions, experiment_id: str) -> str:
    # The plain link of an experiment opens MLflow's view of traces, which is empty here.
    page = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    uri = options.uri or default_uri()
    if uri.startswith("http"):
        return f"MLflow: {redact(uri).rstrip('/')}{page}"
    shown = "sqlite:///mlflow.db" if uri == default_uri() else uri
    return f"MLflow: {show_command('mlflow')} ui --backend-store-uri {shown}\n        then http://127.0.0.1:5000{page}"
