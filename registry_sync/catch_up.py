"""Commits to DVC what batches could not: DVC was locked or out of order, or the batch was killed."""

from collections.abc import Iterator, Sequence

from exporter.errors import SyncError
from exporter.plain_data import DataError
from registry_sync.commit_marks import CommitMarks
from registry_sync.dvc_commit import commit_due, find_published
from registry_sync.dvc_repository import find_repository
from registry_sync.record import BatchRecord, ExportRecord, RunDirectory

__all__ = ["commit_runs"]


def commit_runs(runs: Sequence[RunDirectory]) -> Iterator[str]:
    """Commit the exports of runs that DVC does not have; yields lines for the user.

    Args:
        runs: The oldest first: of an export that several made, the last one says whether DVC is to have it.

    Raises:
        SyncError: Some could not be committed, or a run could not be read; the others are committed.
    """
    root = find_repository()
    if root is None:
        return
    records: list[BatchRecord] = []
    problems: list[str] = []
    for run in runs:
        try:
            records.append(run.read_summary())
        except (OSError, DataError) as error:
            # Of one that MLflow does not have, it is told there.
            problems += [str(error)] if run.mlflow_marker.exists() else []
    marks = CommitMarks(root)
    behind = [
        (record, due) for record, own in _share(records) if (due := [export for export in own if not marks.has(export)])
    ]
    for record, due in behind:
        try:
            yield from commit_due(record, due, marks)
        except SyncError as error:
            problems.append(f"DVC is behind: {error}")
    if problems:
        raise SyncError("\n".join(problems))


def _share(records: Sequence[BatchRecord]) -> Iterator[tuple[BatchRecord, list[ExportRecord]]]:
    """Each record for DVC with those of its exports that no later one has too."""
    latest = {export.directory: number for number, record in enumerate(records) for export in find_published(record)}
    for number, record in enumerate(records):
        if record.tracking.dvc:
            yield record, [export for export in find_published(record) if latest[export.directory] == number]
