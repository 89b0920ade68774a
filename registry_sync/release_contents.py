"""What a release says of each export: its files, its evidence and what it was made from, read from the disk.

What MLflow and DVC call these bytes, the comparison with earlier releases and the verdict are added by others.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from exporter.directory import ExportDirectory, hash_parts
from exporter.errors import IntegrityError
from exporter.files import hash_file
from exporter.limits import find_max_limit_share
from exporter.plain_data import DataError
from exporter.result import ExportResult, FileRecord
from registry_sync.record import GOOD, BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.release_manifest import Measurements, ParitySummary, ReleasedModel, Verdict

__all__ = ["describe_exports", "list_files"]

_SOURCE, _DATA, _WEIGHTS = "code.", "data.", "weights"


def describe_exports(run: RunDirectory, record: BatchRecord) -> list[ReleasedModel]:
    """The exports of a batch, which has to be finished, in its order.

    Raises:
        IntegrityError: A published file is not what its record says.
        DataError, OSError: A result cannot be read.
    """
    return [_describe(run, export) for export in record.exports]


def list_files(directory: ExportDirectory) -> list[FileRecord]:
    """Size and sha256 of each file of an export, by its path in it; without pages, and what is hidden or a link."""
    root = directory.path
    return [
        FileRecord(path=path.relative_to(root).as_posix(), size_bytes=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and path not in directory.pages
    ]


def _describe(run: RunDirectory, export: ExportRecord) -> ReleasedModel:
    directory = ExportDirectory(Path(export.directory))
    is_good = export.outcome in GOOD
    result = directory.read_result() if is_good else run.read_result(export.id)
    files = list_files(directory) if is_good else []
    _require_whole(directory, result, files)
    parts = _read_fingerprint(directory)
    return ReleasedModel(
        id=export.id,
        model=export.model,
        verdict=Verdict.accepted if is_good else Verdict.failed,
        is_new=export.outcome is not Outcome.up_to_date,
        precision=export.precision,
        opset_version=export.opset_version,
        failure=result.failure,
        files=files,
        inputs=result.inputs,
        outputs=result.outputs,
        dims=result.dims,
        op_counts=result.op_counts,
        parity=_describe_parity(result),
        measured=_describe_measurements(result),
        rescued_by=result.rescued_by,
        source_sha256=dict(_find_parts(parts, _SOURCE)),
        data_sha256={_shorten(name): value for name, value in _find_parts(parts, _DATA)},
        checkpoint_sha256=parts.get(_WEIGHTS, ""),
        fingerprint=hash_parts(parts) if parts else result.provenance.fingerprint,
        versions=result.versions,
        git_commit=result.provenance.git_commit,
        git_dirty=result.provenance.git_dirty,
    )


def _require_whole(directory: ExportDirectory, result: ExportResult, files: list[FileRecord]) -> None:
    """The bytes were hashed as they were published, but somebody may have been at them since."""
    if not files:
        return
    hashed = {file.path: file for file in files}
    damaged = [file.path for file in result.files if hashed.get(file.path) != file]
    if damaged:
        raise IntegrityError(f"{directory.path}: {', '.join(damaged)} not as recorded; nothing was released")


def _read_fingerprint(directory: ExportDirectory) -> dict[str, str]:
    try:
        return directory.read_fingerprint()
    except (OSError, DataError):
        return {}


def _find_parts(parts: dict[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    return ((name.removeprefix(prefix), value) for name, value in parts.items() if name.startswith(prefix))


def _shorten(path: str) -> str:
    """A file's path from the working directory, where it lies under it: no names of people's homes."""
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else Path(path).name


def _describe_parity(result: ExportResult) -> ParitySummary:
    return ParitySummary(
        num_cases=len(result.cases),
        max_abs_diff=result.max_abs_diff,
        max_rel_diff=result.max_rel_diff,
        max_rel_l2=result.max_rel_l2,
        max_noise_ratio=result.max_noise_ratio,
        max_limit_share=find_max_limit_share(result),
        rtol=result.spec.precision.rtol,
        atol=result.spec.precision.atol,
    )


def _describe_measurements(result: ExportResult) -> Measurements:
    return Measurements(
        export_peak_bytes=result.export_peak_bytes,
        parity_peak_bytes=result.parity_peak_bytes,
        latency_s=result.latency_s,
        duration_s=result.duration_s,
        size_bytes=result.size_bytes,
        num_parameters=result.num_parameters,
        num_nodes=result.num_nodes,
    )
