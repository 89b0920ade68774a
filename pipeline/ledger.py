"""The written record of one invocation: its directory, events as they happen, a record of each export, the summary."""

import dataclasses
import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from exporter.directory import ExportDirectory, write_json
from exporter.errors import ExitCode, StorageError
from exporter.provenance import read_commit
from exporter.result import ExportResult
from exporter.versions import library_versions
from pipeline.config import Config
from pipeline.plan import PlannedExport
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.redaction import redact

__all__ = ["Ledger", "record_cancelled", "record_result"]


class Ledger:
    """Writes under runs/<run id>/.

    Args:
        config: The batch's settings.
        planned: Every export of the batch, in the order of the summary.
        command: The command line's arguments.
    """

    def __init__(self, config: Config, planned: Sequence[PlannedExport], command: Sequence[str]) -> None:
        self._config = config
        self._planned = planned
        self._command = command
        self._started = time.time()
        self._run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.run = RunDirectory(Path(config.output.runs) / self._run_id)
        self.records: dict[str, ExportRecord] = {}

    def open(self) -> None:
        """Make the run's directory, and one with its spec for each export that is due.

        Raises:
            StorageError: The disk would not.
        """
        try:
            self.run.results.mkdir(parents=True)
            Path(self._config.output.metrics).mkdir(parents=True, exist_ok=True)
            self._require_one_file_system()
            for plan in self._planned:
                if plan.reason:
                    directory = ExportDirectory(self.run.export_directory(plan.spec.id))
                    directory.path.mkdir(parents=True)
                    write_json(directory.spec, plan.spec)
                    write_json(directory.fingerprint, plan.fingerprint)
        except OSError as error:
            raise StorageError(f"{error.filename or self.run.path}: {error.strerror or error}") from error
        self.log_event("batch_started", exports=[plan.spec.id for plan in self._planned])

    def _require_one_file_system(self) -> None:
        exports, runs = Path(self._config.output.exports), Path(self._config.output.runs)
        if exports.stat().st_dev != runs.stat().st_dev:
            raise StorageError(
                f"output.exports ({exports}) and output.runs ({runs}) are on different file systems; an export is "
                "published by a rename, which needs them on one"
            )

    def log_event(self, event: str, **details: object) -> None:
        """Append a line to events.jsonl."""
        line = json.dumps({"time": _timestamp(time.time()), "event": event, **details})
        with self.run.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def keep_output(self, text: str) -> None:
        """Write what was printed while no worker could be started yet."""
        if text:
            self.run.server_log.write_text(text, encoding="utf-8")

    def keep(self, record: ExportRecord) -> None:
        """Take the record of an export that has ended."""
        self.records[record.id] = record
        kind = record.failure.kind.value if record.failure else None
        self.log_event("export_ended", export=record.id, outcome=record.outcome.value, kind=kind)

    def close(self, code: ExitCode) -> BatchRecord:
        """Write the summary; every planned export has to have its record by now."""
        ended = time.time()
        release = self._config.release
        record = BatchRecord(
            run_id=self._run_id,
            name=release.name if release else _name_batch(list(self.records)),
            release=release.name if release else None,
            command=[redact(argument) for argument in self._command],
            started_at=_timestamp(self._started),
            ended_at=_timestamp(ended),
            duration_s=max(0.0, ended - self._started),
            exit_code=code,
            git_commit=read_commit(),
            exports=[self.records[plan.spec.id] for plan in self._planned],
            tracking=_without_credentials(self._config.tracking),
            versions=library_versions(),
        )
        self.run.write_summary(record)
        self.log_event("batch_ended", exit_code=int(code))
        return record


def record_result(plan: PlannedExport, result: ExportResult, directory: Path, num_tries: int) -> ExportRecord:
    """The summary's line on an export that has a result, of this run or, after no try, of an earlier one."""
    outcome = Outcome(result.status.value)
    return ExportRecord(
        id=result.id,
        model=result.spec.model.name,
        outcome=outcome if plan.reason else Outcome.up_to_date,
        failure=result.failure,
        directory=str(directory),
        reason=plan.reason,
        duration_s=result.duration_s,
        opset_version=result.spec.export.opset_version,
        precision=result.spec.precision.name.value,
        max_abs_diff=result.max_abs_diff,
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
