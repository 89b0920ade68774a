"""Brings MLflow and DVC up to date with a batch, in the background as far as it goes, in bounded time.

Importing MLflow takes longer than a small export, so it is done while workers run. One writer: this process.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass, field

from exporter.errors import ExitCode, SyncError
from registry_sync.bounded import Budget, call_bounded
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.release_manifest import RELEASES
from registry_sync.release_options import ReleaseOptions

__all__ = ["SyncReport", "Tracker"]


@dataclass
class SyncReport:
    """What to tell the user, and whether something has to be caught up with."""

    lines: list[str] = field(default_factory=list)
    is_behind: bool = False
    # Of the release, where there is one: 1 if it did not pass, 5 or 7 if it could not be made.
    release_code: ExitCode = ExitCode.OK


class Tracker:
    """Tracks one batch.

    Args:
        options: Where to.
        release: What the batch is a release of, if it is one.
    """

    def __init__(self, options: TrackingOptions, release: ReleaseOptions | None = None) -> None:
        self._options = options
        self._release = release
        self._preparation: threading.Thread | None = None

    def begin(self) -> None:
        """Start to import and set up what `finish` will need; returns at once."""
        self._preparation = threading.Thread(target=self._prepare, name="tracker", daemon=True)
        self._preparation.start()

    def finish(self, run: RunDirectory, record: BatchRecord) -> SyncReport:
        """Log a finished batch to MLflow, commit to DVC what it does not have, and release it if it is a release.

        Failures come back as lines.
        """
        report = SyncReport()
        budget = Budget(self._options.budget_s)
        if self._options.mlflow and record.has_news:
            self._finish_mlflow(run, record, report, budget)
        is_mlflow_away = report.is_behind
        if self._options.dvc:
            with budget.paused():
                self._finish_dvc(run, record, report)
        if self._release is not None:
            self._finish_release(self._release, run, record, report, budget, is_mlflow_away=is_mlflow_away)
        if self._options.dvc or self._release is not None:
            from registry_sync.dvc_commit import suggest_git

            # Last, so that the release is in it.
            line = suggest_git(record)
            report.lines += [line] if line else []
        return report

    def _prepare(self) -> None:
        # A failure here comes up again, and is told, when the real work is tried.
        with suppress(Exception):
            if self._options.mlflow:
                # All that will be needed, not the store alone.
                from registry_sync import mlflow_log  # noqa: F401
                from registry_sync.store import open_store

                open_store(self._options)
            if self._options.dvc:
                from registry_sync import dvc_commit

                dvc_commit.load()

    def _finish_mlflow(self, run: RunDirectory, record: BatchRecord, report: SyncReport, budget: Budget) -> None:
        def log_batch() -> str:
            from registry_sync import mlflow_log

            return mlflow_log.log_batch(run, record, self._options, budget)

        if self._preparation is not None:
            # It imports what is needed here, and may be about to.
            self._preparation.join(self._options.budget_s)
        try:
            report.lines.append(call_bounded(log_batch, budget, "MLflow"))
        except SyncError as error:
            report.is_behind = True
            report.lines.append(f"MLflow is behind: {error}")
            report.lines.append(f"  catch up with: python -m registry_sync sync {run.path}")

    def _finish_dvc(self, run: RunDirectory, record: BatchRecord, report: SyncReport) -> None:
        from registry_sync import dvc_commit

        try:
            for line in dvc_commit.commit_exports(record):
                report.lines.append(line)
        except (SyncError, OSError) as error:
            report.is_behind = True
            report.lines.append(f"DVC is behind: {error}")
            report.lines.append(f"  catch up with: python -m registry_sync sync {run.path}")

    def _finish_release(
        self,
        release: ReleaseOptions,
        run: RunDirectory,
        record: BatchRecord,
        report: SyncReport,
        budget: Budget,
        *,
        is_mlflow_away: bool,
    ) -> None:
        from registry_sync.release import make_release

        made = make_release(
            run,
            record,
            release,
            RELEASES,
            tracking=self._options,
            budget=budget,
            is_mlflow_away=is_mlflow_away,
        )
        report.lines.extend(made.lines)
        report.is_behind = report.is_behind or made.is_behind
        report.release_code = made.code
