"""Commits exports to DVC: those that a stage of dvc.yaml produces, so that `dvc status` is clean after a batch.

The batch has written the stages' outputs itself, in parallel, which DVC cannot; `dvc commit` then records them.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.errors import SyncError
from registry_sync.commands import show_command
from registry_sync.commit_marks import CommitMarks
from registry_sync.record import BatchRecord, Outcome

__all__ = ["STAGE", "commit_exports", "load"]

# The stage group of dvc.yaml; a model's stage is export@<model>.
STAGE = "export"
# Set by DVC for the command of a stage that it runs.
_INSIDE_DVC = "DVC_STAGE"


def load() -> None:
    """Import DVC, which takes half a second."""
    if _find_repository() is not None and _INSIDE_DVC not in os.environ:
        import dvc.repo  # noqa: F401


def commit_exports(record: BatchRecord) -> Iterator[str]:
    """Commit the stages of published exports that DVC does not have yet; yields lines for the user.

    Those of earlier batches too: one that was stopped, or found DVC locked, left its exports to the next. Outside of
    a DVC repository, and for an export without a stage, there is nothing to commit, and a line says so.

    Raises:
        SyncError: DVC has the stage and could not commit it; the message has the command to repeat.
    """
    published = [export for export in record.exports if export.outcome in (Outcome.passed, Outcome.up_to_date)]
    new = {export.id for export in published if export.outcome is Outcome.passed}
    if _INSIDE_DVC in os.environ or not published:
        # `dvc repro` runs us, and commits what we leave.
        return
    repository = _find_repository()
    if repository is None:
        if new:
            yield "DVC: not a DVC repository; exports are not versioned (git init, dvc init, or tracking.dvc=false)"
        return
    marks = CommitMarks(repository)
    due = [export for export in published if not marks.is_current(export)]
    if not due:
        return
    stages, without = _find_stages([export.id for export in due])
    told = [name for name in without if name in new]
    if told:
        names = ", ".join(told[:5]) + (" ..." if len(told) > 5 else "")
        yield f"DVC: no stage in dvc.yaml for {names}; not versioned"
    if stages:
        _commit(stages)
        yield f"DVC:    {show_command('dvc')} metrics show   ({len(stages)} of {len(due)} exports committed)"
    marks.update(due)


def _find_repository() -> Path | None:
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), None)


def _find_stages(ids: list[str]) -> tuple[list[str], list[str]]:
    repository = _open()
    try:
        known = {stage.addressing for stage in repository.index.stages}
    except Exception as error:
        raise SyncError(f"dvc.yaml: {error}") from error
    finally:
        repository.close()
    stages = {name: f"{STAGE}@{name}" for name in ids}
    return (
        [stage for stage in stages.values() if stage in known],
        [name for name, stage in stages.items() if stage not in known],
    )


def _open() -> Any:
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        return Repo(str(_find_repository()))
    except Exception as error:
        raise SyncError(str(error)) from error


def _commit(stages: list[str]) -> None:
    repository = _open()
    try:
        for stage in stages:
            # force: the outputs are newer than dvc.lock, which is the point.
            repository.commit(stage, force=True)
    except Exception as error:
        raise SyncError(f"{error}\n  catch up with: {show_command('dvc')} commit -f {' '.join(stages)}") from error
    finally:
        repository.close()
