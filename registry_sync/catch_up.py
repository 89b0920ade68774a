"""Commits to DVC what batches could not: DVC was locked or out of order, or the batch was killed."""

import dataclasses
from collections.abc import Iterator, Sequence

from exporter.errors import SyncError
from exporter.plain_data import DataError
from registry_sync.dvc_commit import commit_exports
from registry_sync.dvc_repository import find_repository
from registry_sync.record import GOOD, BatchRecord, ExportRecord, RunDirectory

__all__ = ["commit_runs"]


def commit_runs(runs: Sequence[RunDirectory]) -> Iterator[str]:
    """Commit the exports of runs that DVC does not have as they are now; yields lines for the user.

    Args:
        runs: The oldest first: of an export that several made, the last one says whether DVC is to have it.

    Raises:
        SyncError: Some could not be committed, or a run could not be read; the others are committed.
    """
    if find_repository() is None:
        return
    unreadable: list[str] = []
    found: dict[str, tuple[ExportRecord, BatchRecord]] = {}
    for run in runs:
        try:
            record = run.read_summary()
        except (OSError, DataError) as error:
            # Of one that MLflow does not have, it is told there.
            unreadable += [str(error)] if run.mlflow_marker.exists() else []
            continue
        found |= {export.directory: (export, record) for export in record.exports if export.outcome in GOOD}
    wanted = [export for export, record in found.values() if record.tracking.dvc]
    if wanted:
        last = list(found.values())[-1][1]
        yield from commit_exports(dataclasses.replace(last, exports=wanted))
    if unreadable:
        raise SyncError("\n".join(unreadable))
