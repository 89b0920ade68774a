"""The tags that runs and models are found by: each thing of ours has a key, and what one filters by in a flat list."""

from pathlib import Path

from exporter.directory import ExportDirectory, hash_parts
from exporter.plain_data import DataError
from exporter.result import ExportResult
from registry_sync.record import BatchRecord, ExportRecord

__all__ = [
    "KEY_TAG",
    "MODEL_ID_TAG",
    "RUN_ID_TAG",
    "cut_text",
    "describe_batch",
    "describe_export",
    "describe_model",
    "hash_content",
]

# What a thing is found again by.
KEY_TAG = "modelpress.key"
# The batch that a thing belongs to.
RUN_ID_TAG = "modelpress.run_id"
# The LoggedModel of a run, or of a version.
MODEL_ID_TAG = "modelpress.model_id"
_MAX_TAG = 8000


def describe_batch(record: BatchRecord) -> dict[str, str]:
    """Of the run for the batch."""
    return _drop_empty(
        {
            KEY_TAG: record.run_id,
            RUN_ID_TAG: record.run_id,
            "modelpress.kind": "batch",
            "modelpress.batch": record.name,
            "modelpress.release": record.release or "",
            "modelpress.command": " ".join(record.command),
            "modelpress.exit_code": str(record.exit_code),
            "mlflow.source.name": "modelpress",
            "mlflow.source.git.commit": record.git_commit,
            **_describe_versions(record.versions),
        }
    )


def describe_export(record: BatchRecord, export: ExportRecord, result: ExportResult) -> dict[str, str]:
    """Of the run for an export; a failed one says why."""
    tags = {
        KEY_TAG: f"{record.run_id}/{export.id}",
        RUN_ID_TAG: record.run_id,
        "modelpress.kind": "export",
        "modelpress.batch": record.name,
        "modelpress.release": record.release or "",
        "modelpress.outcome": export.outcome.value,
        "modelpress.reason": export.reason,
        "modelpress.rescued_by": ", ".join(result.rescued_by),
        "mlflow.source.name": "modelpress",
        "mlflow.source.git.commit": record.git_commit,
        **_describe_spec(result, ExportDirectory(Path(export.directory))),
        **_describe_versions(result.versions),
    }
    if export.failure is not None:
        tags |= {
            "modelpress.failure.step": export.failure.step or "start",
            "modelpress.failure.kind": export.failure.kind.value,
            "modelpress.failure.cause": export.failure.cause,
            "modelpress.failure.hint": export.failure.hint,
            "modelpress.failure.ops": ", ".join(export.failure.ops),
            "modelpress.failure.fingerprint": export.failure.fingerprint,
        }
    return _drop_empty(tags)


def describe_model(result: ExportResult, directory: ExportDirectory, *, release: str | None) -> dict[str, str]:
    """Of the LoggedModel of an export, but for its key."""
    return _drop_empty(
        {
            "modelpress.release": release or "",
            **_describe_spec(result, directory),
            "modelpress.content": hash_content(result),
            **{f"modelpress.sha256.{file.path}": file.sha256 for file in result.files},
            **_describe_versions(result.versions),
        }
    )


def hash_content(result: ExportResult) -> str:
    """One hash for the names and bytes of all files of an export's model."""
    return hash_parts({file.path: file.sha256 for file in result.files})


def cut_text(text: str) -> str:
    """As much as a tag holds, in whole lines."""
    if len(text) <= _MAX_TAG:
        return text
    rest = "\n\n(cut here; the whole is among the files)"
    kept = text[: _MAX_TAG - len(rest)]
    return kept[: kept.rfind("\n") + 1].rstrip("\n") + rest if "\n" in kept else kept + rest


def _describe_spec(result: ExportResult, directory: ExportDirectory) -> dict[str, str]:
    return {
        "modelpress.export": result.id,
        "modelpress.model": result.spec.model.name,
        "modelpress.opset_version": str(result.spec.export.opset_version),
        "modelpress.precision": result.spec.precision.name.value,
        "modelpress.device": result.spec.export.device.value,
        "modelpress.fingerprint": result.provenance.fingerprint or _read_fingerprint(directory),
    }


def _read_fingerprint(directory: ExportDirectory) -> str:
    try:
        return hash_parts(directory.read_fingerprint())
    except (OSError, DataError):
        return ""


def _describe_versions(versions: dict[str, str]) -> dict[str, str]:
    return {f"version.{name}": version for name, version in versions.items()}


def _drop_empty(tags: dict[str, str]) -> dict[str, str]:
    return {name: cut_text(value) for name, value in tags.items() if value}
