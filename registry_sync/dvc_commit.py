"""Commits published exports to DVC, so that each is versioned and `dvc status` is clean after a batch.

The batch has written the outputs of dvc.yaml's stages itself, in parallel, which DVC cannot; `dvc commit` then records
them. What no stage produces (a variant, a user's own model) is tracked as by `dvc add`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from exporter.errors import SyncError
from registry_sync.commands import show_command
from registry_sync.commit_marks import CommitMarks
from registry_sync.dvc_repository import DvcRepository, find_repository, is_inside_stage, open_repository
from registry_sync.git_line import suggest_commit
from registry_sync.plot_data import gather_metrics
from registry_sync.record import GOOD, BatchRecord, ExportRecord, Outcome
from registry_sync.watched import find_changed_since, find_unwatched

__all__ = ["commit_due", "commit_exports", "find_published", "load", "suggest_git"]

# In the subject of a commit.
_MAX_NAMES = 3


def load() -> None:
    """Import DVC, which takes half a second."""
    if find_repository() is not None and not is_inside_stage():
        import dvc.repo  # noqa: F401


def commit_exports(record: BatchRecord) -> Iterator[str]:
    """Commit the published exports of a batch that DVC does not have yet; yields lines for the user.

    Those of earlier batches too: one that was stopped, or found DVC locked, left its exports to the next.

    Raises:
        SyncError: DVC could not commit some; the others are committed.
    """
    published = find_published(record)
    if is_inside_stage():
        # `dvc repro` runs us, and commits what we leave.
        gather_metrics(record.metrics)
        return
    root = find_repository()
    if root is None:
        if any(export.outcome is Outcome.passed for export in published):
            yield "DVC: not a DVC repository; exports are not versioned (git init, dvc init, or tracking.dvc=false)"
        return
    marks = CommitMarks(root)
    yield from commit_due(record, [export for export in published if not marks.is_current(export)], marks)


def suggest_git(record: BatchRecord) -> str | None:
    """The command that commits to git what a batch, and its release, left there; None for nothing."""
    published = find_published(record)
    root = find_repository()
    # Releases belong there, whether DVC is used or not.
    if (root is None and record.release is None) or is_inside_stage() or not published:
        return None
    names = [export.id for export in published]
    listed = ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if names[_MAX_NAMES:] else "")
    subject = f"Release {record.release}" if record.release else f"Export {listed}"
    return suggest_commit(root, subject, [Path(export.directory) for export in published], record.metrics)


def find_published(record: BatchRecord) -> list[ExportRecord]:
    """The exports of a batch that are there."""
    return [export for export in record.exports if export.outcome in GOOD and Path(export.directory).is_dir()]


def commit_due(record: BatchRecord, due: Sequence[ExportRecord], marks: CommitMarks) -> Iterator[str]:
    """Commit exports of a batch to DVC; yields lines for the user.

    Args:
        record: Of the batch.
        due: What of it to commit.
        marks: Where to remember what is committed.

    Raises:
        SyncError: DVC could not commit some; the others are committed.
    """
    if not due:
        return
    gather_metrics(record.metrics)
    commit = _Commit(datetime.fromisoformat(record.started_at).timestamp())
    commit.run(due)
    marks.update(commit.settled)
    if commit.num_committed:
        done = f"{commit.num_committed} of {len(due)} exports committed"
        yield f"DVC:    {show_command('dvc')} metrics show   ({done})"
    yield from commit.notes
    if commit.problems:
        raise SyncError("\n".join(commit.problems))


class _Commit:
    """One go at DVC, under one hold of its lock.

    Args:
        started: When the batch looked at what the exports depend on, in seconds since 1970.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        # The stages that are committed, and have to be written.
        self._stages: dict[str, Any] = {}
        # What need not be tried again: DVC has it, or cannot ever.
        self.settled: list[ExportRecord] = []
        self.num_committed = 0
        # Lines for the user: on what is as it is, and on what went wrong.
        self.notes: list[str] = []
        self.problems: list[str] = []

    def run(self, due: Sequence[ExportRecord]) -> None:
        """Commit the stages of the exports that have one, and add the others.

        Raises:
            SyncError: Nothing could be done: DVC is locked, or cannot read its files.
        """
        with open_repository() as repository, repository.hold():
            outputs = repository.find_outputs()
            for export in due:
                try:
                    self._commit(repository, outputs, export)
                except SyncError as error:
                    self.problems.append(f"{export.directory}: {error}")
            repository.write_locks(list(self._stages.values()))
            if repository.links:
                self.notes.append(
                    f"DVC: cache.type is {repository.links}: dvc checkout would put links into exports/, through which "
                    f"onnx loads no model; {show_command('dvc')} config --local cache.type reflink,copy"
                )

    def _commit(self, repository: DvcRepository, outputs: dict[Path, list[Any]], export: ExportRecord) -> None:
        path = Path(export.directory).resolve()
        # Of the export, or of a folder that it is in: some track exports/ as a whole.
        place = next((place for place in (path, *path.parents) if place in outputs), None)
        owners = outputs[place] if place is not None else []
        if len(owners) > 1:
            raise SyncError(_explain_owners(owners))
        if owners and (place != path or not owners[0].stage.is_data_source):
            if late := find_changed_since(owners[0].stage, self._started):
                raise SyncError(f"{late} was changed after the batch had begun; run the batch again")
            # Where it is a folder of several, once.
            if owners[0].stage.addressing not in self._stages:
                repository.commit(owners[0].stage)
            self._stages[owners[0].stage.addressing] = owners[0].stage
            if export.outcome is Outcome.passed and not owners[0].stage.is_data_source:
                self.notes.extend(find_unwatched(export, owners[0].stage))
        elif not path.is_relative_to(repository.root):
            self.notes.append(f"DVC: {export.directory} is outside of {repository.root}; not versioned")
            self.settled.append(export)
            return
        elif repository.is_ignored(path.with_name(f"{path.name}.dvc")):
            folder = path.parent.relative_to(repository.root)
            raise SyncError(
                f"not versioned, because git ignores {path.name}.dvc beside it; let .gitignore ignore the folders "
                f"there alone, by /{folder}/?*/"
            )
        else:
            repository.add(path)
        self.settled.append(export)
        self.num_committed += 1


def _explain_owners(owners: Sequence[Any]) -> str:
    names = " and ".join(output.stage.addressing for output in owners)
    extra = next((output.stage.relpath for output in owners if output.stage.is_data_source), None)
    return f"belongs to {names}; keep one" + (f": git rm --cached {extra}; rm {extra}" if extra else "")
