"""The written record of one invocation: its directory, events as they happen, a record of each export, the summary.

A run's directory appears in one rename, with its plan in it, and its last file is the summary: a directory with a plan
and without a summary is that of a run at work, or of one that was killed (`recovery`).
"""

import dataclasses
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, StorageError
from exporter.files import sync, write_json
from exporter.limits import find_max_limit_share
from exporter.provenance import read_commit
from exporter.result import ExportResult
from exporter.storage_faults import require_one_file_system, require_writable, storage_faults
from exporter.versions import library_versions
from pipeline.config import Config
from pipeline.event_log import append_event
from pipeline.plan import PlannedExport
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.redaction import redact

__all__ = ["Ledger", "RunPlan", "place_of_start", "record_cancelled", "record_result"]

_RUNS_KEY = "output.runs"


@dataclass(frozen=True)
class RunPlan:
    """What a run sets out to do.

    Args:
        exports: The exports directory whose lock the run holds, relative to the run's own, so that both can be moved.
        summary: As it is if the run is killed now: all that is due is cancelled.
    """

    exports: str
    summary: BatchRecord


class Ledger:
    """Writes under runs/<run id>/.

    Args:
        config: The batch's settings.
        planned: Every export of the batch, in the order of the summary.
        command: The command line's arguments.
    """

    def __init__(self, config: Config, planned: Sequence[PlannedExport], command: Sequence[str]) -> None:
        self._config = config
        self._exports = Path(config.output.exports)
        self._runs = Path(config.output.runs)
        self._planned = planned
        self.command = [redact(argument) for argument in command]
        self._started = time.time()
        # Of the code that is about to run; it may be worked on meanwhile.
        self._git_commit = read_commit()
        self._run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.run = RunDirectory(self._runs / self._run_id)
        self.records: dict[str, ExportRecord] = {}

    def open(self, **details: object) -> None:
        """Make the run's directory, and in it the plan and a directory with its spec for each export that is due.

        Args:
            **details: Of the batch, for its first event.

        Raises:
            StorageError: The disk would not, or would not take what an export leads to.
        """
        metrics = Path(self._config.output.metrics)
        for path, key in ((self._runs, _RUNS_KEY), (metrics, "output.metrics")):
            with storage_faults(path, key):
                path.mkdir(parents=True, exist_ok=True)
            require_writable([path], key)
        replaced = [self._exports / plan.spec.id for plan in self._planned if plan.reason]
        require_writable([self._exports, *(path for path in replaced if path.exists())], "output.exports")
        require_one_file_system(self._exports, self._runs)
        starting = RunDirectory(place_of_start(self._runs, self._exports))
        try:
            with storage_faults(starting.path, _RUNS_KEY):
                self._fill(starting, details)
                starting.path.rename(self.run.path)
                sync(self._runs)
        except StorageError:
            shutil.rmtree(starting.path, ignore_errors=True)
            raise

    def _fill(self, starting: RunDirectory, details: Mapping[str, object]) -> None:
        starting.results.mkdir(parents=True)
        for plan in self._planned:
            if plan.reason:
                directory = ExportDirectory(starting.export_directory(plan.spec.id))
                directory.path.mkdir(parents=True)
                write_json(directory.spec, plan.spec)
                write_json(directory.fingerprint, plan.fingerprint)
        append_event(starting.events, "batch_started", **details)
        exports = os.path.relpath(self._exports.resolve(), starting.path.resolve())
        pending = self._describe(map(self._expect, self._planned), self._started, ExitCode.KILLED)
        write_json(starting.plan, RunPlan(exports, pending), is_durable=True)

    def _expect(self, plan: PlannedExport) -> ExportRecord:
        if plan.published is not None:
            return record_result(plan.published, "", self._exports / plan.spec.id, 0)
        return record_cancelled(plan, self.run.export_directory(plan.spec.id), 0)

    def log_event(self, event: str, **details: object) -> None:
        """Append a line to events.jsonl.

        Raises:
            StorageError: The disk would not.
        """
        with storage_faults(self.run.events, _RUNS_KEY):
            append_event(self.run.events, event, **details)

    def keep_result(self, result: ExportResult) -> None:
        """Keep a copy of a result, durably: exports/ shows the last good one, this is the one of this run.

        To be called before the export is published, so that what is published has a record whatever happens.

        Raises:
            StorageError: The disk would not.
        """
        path = self.run.result(result.id)
        with storage_faults(path, _RUNS_KEY):
            write_json(path, result, is_durable=True)

    def keep_output(self, text: str) -> None:
        """Write what was printed while no worker could be started yet."""
        if text:
            self.run.server_log.write_text(text, encoding="utf-8")

    def keep(self, record: ExportRecord) -> None:
        """Take the record of an export that has ended.

        Raises:
            StorageError: The disk would not have the event.
        """
        self.records[record.id] = record
        failure = record.failure
        self.log_event(
            "export_ended",
            export=record.id,
            outcome=record.outcome.value,
            kind=failure.kind.value if failure else None,
            step=failure.step.value if failure and failure.step else None,
            cause=failure.cause if failure else None,
            duration_s=record.duration_s,
            peak_bytes=record.export_peak_bytes,
            num_tries=record.num_tries,
        )

    def discard(self, name: str) -> Path:
        """Remove what an export left that was not brought to its end, but for its log; returns its directory.

        Raises:
            StorageError: The disk would not.
        """
        directory = ExportDirectory(self.run.export_directory(name))
        with storage_faults(directory.path, _RUNS_KEY):
            directory.clear()
        return directory.path

    def close(self, code: ExitCode) -> BatchRecord:
        """Write the summary, and before it a page for a browser; every planned export has to have its record by now.

        Raises:
            StorageError: The disk would not; the next start writes one.
        """
        record = self._describe([self.records[plan.spec.id] for plan in self._planned], time.time(), code)
        self.log_event("batch_ended", exit_code=int(code))
        if record.has_news:
            # Not for a run in which nothing was due, which takes no longer than this import.
            from registry_sync.baseline import find_baseline
            from registry_sync.batch_page import write_batch_page

            with storage_faults(self.run.page, _RUNS_KEY):
                write_batch_page(self.run, record, find_baseline(self.run, record))
        with storage_faults(self.run.summary, _RUNS_KEY):
            self.run.write_summary(record)
        return record

    def _describe(self, records: Iterable[ExportRecord], ended: float, code: ExitCode) -> BatchRecord:
        release = self._config.release
        return BatchRecord(
            run_id=self._run_id,
            name=release.name if release else _name_batch([plan.spec.id for plan in self._planned]),
            release=release.name if release else None,
            command=self.command,
            started_at=_timestamp(self._started),
            ended_at=_timestamp(ended),
            duration_s=max(0.0, ended - self._started),
            exit_code=code,
            git_commit=self._git_commit,
            exports=list(records),
            tracking=_without_credentials(self._config.tracking),
            metrics=self._config.output.metrics,
            versions=library_versions(),
        )


def place_of_start(runs: Path, exports: Path) -> Path:
    """Where a run's directory is made before it gets its name; one place for each exports/, whose lock guards it."""
    whose = os.path.relpath(exports.resolve(), runs.resolve())
    return runs / f".starting-{hashlib.sha256(whose.encode()).hexdigest()[:8]}"


def record_result(result: ExportResult, reason: str, directory: Path, num_tries: int) -> ExportRecord:
    """The summary's line on an export that has a result, of this run or, if it had no reason to run, an earlier one."""
    outcome = Outcome(result.status.value)
    return ExportRecord(
        id=result.id,
        model=result.spec.model.name,
        outcome=outcome if reason else Outcome.up_to_date,
        failure=result.failure,
        directory=str(directory),
        reason=reason,
        duration_s=result.duration_s,
        opset_version=result.spec.export.opset_version,
        precision=result.spec.precision.name.value,
        max_abs_diff=result.max_abs_diff,
        max_limit_share=find_max_limit_share(result),
        max_noise_ratio=result.max_noise_ratio,
        export_peak_bytes=result.export_peak_bytes,
        rescued_by=result.rescued_by,
        size_bytes=result.size_bytes,
        num_nodes=result.num_nodes,
        latency_s=result.latency_s,
        num_tries=num_tries,
    )


def record_cancelled(plan: PlannedExport, directory: Path, num_tries: int) -> ExportRecord:
    """The summary's line on an export that was not begun, or not brought to its end."""
    return ExportRecord(
        id=plan.spec.id,
        model=plan.spec.model.name,
        outcome=Outcome.cancelled,
        directory=str(directory),
        reason=plan.reason,
        opset_version=plan.spec.export.opset_version,
        precision=plan.spec.precision.name.value,
        num_tries=num_tries,
    )


def _without_credentials(options: TrackingOptions) -> TrackingOptions:
    # The summary is shown to everyone; who catches up later has the credentials in the environment.
    return dataclasses.replace(options, uri=redact(options.uri) if options.uri else None)


def _name_batch(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
