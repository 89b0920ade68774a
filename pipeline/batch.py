"""One invocation from start to end: plan, run workers, publish what passed, write the summary, bring trackers up."""

import dataclasses
import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from exporter.directory import ExportDirectory, write_json
from exporter.errors import ConfigError, ExitCode, FailureKind, StorageError
from exporter.failures import is_storage_error
from exporter.result import ExportResult, Failure, Status
from exporter.spec import ExportSpec
from exporter.versions import library_versions
from pipeline.config import Config
from pipeline.display import Display
from pipeline.executor import Ended, Executor, Started, Task
from pipeline.local_executor import LocalExecutor, count_cores
from pipeline.lock import lock_output
from pipeline.outcomes import collect_result, fail_result
from pipeline.plan import PlannedExport, plan_exports, require_sound
from pipeline.publication import publish
from registry_sync.metrics import collect_metrics
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.redaction import redact
from registry_sync.tracker import Tracker

__all__ = ["Job", "run_batch"]


@dataclass(frozen=True)
class Job:
    """One spec and the settings of the run it came with."""

    spec: ExportSpec
    config: Config


class Terminated(BaseException):
    """SIGTERM reached us; like Ctrl-C, it must pass every `except Exception`."""


def run_batch(jobs: Sequence[Job], command: list[str]) -> ExitCode:
    """Export what is not up to date, and say how it went.

    Args:
        jobs: At least one; they have to agree on the settings of the run (executor, tracking, output).
        command: The command line's arguments, for the record.

    Raises:
        ModelpressError: Nothing could be started: the jobs contradict each other, the output is locked or not
            writable.
    """
    config = _common_settings(jobs)
    specs = [job.spec for job in jobs]
    require_sound(specs)
    exports = Path(config.output.exports)
    with lock_output(exports):
        planned = plan_exports(specs, exports, force=config.force)
        with _sigterm_raises():
            return _Batch(config, planned, command).run()


class _Batch:
    """The state of one invocation."""

    def __init__(self, config: Config, planned: list[PlannedExport], command: list[str]) -> None:
        self._config = config
        self._planned = planned
        self._command = command
        self._started = time.time()
        self._run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self._run_directory = RunDirectory(Path(config.output.runs) / self._run_id)
        self._exports = Path(config.output.exports)
        self._records: dict[str, ExportRecord] = {}
        self._display = Display(len(planned))
        self._tracker = Tracker(config.tracking)

    def run(self) -> ExitCode:
        due = [plan for plan in self._planned if plan.reason]
        stopped_by = ExitCode.OK
        try:
            self._prepare(due)
            self._display.begin()
            if due:
                self._tracker.begin()
            self._record_up_to_date()
            self._run_workers(due)
        except KeyboardInterrupt:
            stopped_by = ExitCode.INTERRUPTED
        except Terminated:
            stopped_by = ExitCode.TERMINATED
        finally:
            self._display.close()
        for plan in due:
            if plan.spec.id not in self._records:
                self._record_cancelled(plan)
        code = stopped_by or self._judge()
        record = self._summarize(code)
        self._display.show_table(record)
        if stopped_by:
            self._display.say(f"stopped; what is finished is kept in {self._exports}/")
        elif record.has_news:
            code = self._track(record)
        self._point_to_failures(record)
        return code

    def _prepare(self, due: Sequence[PlannedExport]) -> None:
        try:
            self._run_directory.results.mkdir(parents=True)
            for plan in due:
                directory = ExportDirectory(self._run_directory.export_directory(plan.spec.id))
                directory.path.mkdir(parents=True)
                write_json(directory.spec, plan.spec)
                write_json(directory.fingerprint, plan.fingerprint)
        except OSError as error:
            raise StorageError(f"{self._run_directory.path}: {error.strerror or error}") from error
        self._log_event("batch_started", exports=[plan.spec.id for plan in self._planned])

    def _run_workers(self, due: Sequence[PlannedExport]) -> None:
        if not due:
            return
        plans = {plan.spec.id: plan for plan in due}
        tasks = [Task(name, self._run_directory.export_directory(name)) for name in plans]
        for event in _make_executor(self._config).run(tasks):
            if isinstance(event, Started):
                self._log_event("export_started", export=event.task.id)
                self._display.show_started(event.task)
            elif isinstance(event, Ended):
                self._finish(plans[event.task.id], event)
            else:
                self._display.refresh()

    def _finish(self, plan: PlannedExport, ended: Ended) -> None:
        result = collect_result(plan.spec, ended)
        directory = ExportDirectory(ended.task.directory)
        if result.status is Status.passed:
            try:
                publish(directory, self._exports / plan.spec.id, result)
                directory = ExportDirectory(self._exports / plan.spec.id)
                self._write_metrics(result)
            except ValueError as error:
                result = fail_result(plan.spec, directory, FailureKind.corrupt_output, str(error), ended.duration_s)
            except OSError as error:
                if not is_storage_error(error):
                    raise
                result = fail_result(plan.spec, directory, FailureKind.storage_error, str(error), ended.duration_s)
        write_json(self._run_directory.result(plan.spec.id), result)
        self._keep(_record_result(plan, result, directory.path))

    def _write_metrics(self, result: ExportResult) -> None:
        metrics = Path(self._config.output.metrics)
        metrics.mkdir(parents=True, exist_ok=True)
        write_json(metrics / f"{result.id}.json", collect_metrics(result))

    def _record_up_to_date(self) -> None:
        for plan in self._planned:
            if plan.published is not None:
                self._keep(_record_result(plan, plan.published, self._exports / plan.spec.id))

    def _record_cancelled(self, plan: PlannedExport) -> None:
        directory = self._run_directory.export_directory(plan.spec.id)
        self._keep(
            ExportRecord(
                id=plan.spec.id,
                model=plan.spec.model.name,
                outcome=Outcome.cancelled,
                directory=str(directory),
                reason=plan.reason,
                opset_version=plan.spec.export.opset_version,
                precision=plan.spec.precision.name.value,
            )
        )

    def _keep(self, record: ExportRecord) -> None:
        self._records[record.id] = record
        kind = record.failure.kind.value if record.failure else None
        self._log_event("export_ended", export=record.id, outcome=record.outcome.value, kind=kind)
        self._display.show_ended(record)

    def _judge(self) -> ExitCode:
        kinds = {record.failure.kind for record in self._records.values() if record.failure is not None}
        if FailureKind.internal_error in kinds:
            return ExitCode.BUG
        if FailureKind.storage_error in kinds:
            return ExitCode.STORAGE
        return ExitCode.EXPORT_FAILED if kinds else ExitCode.OK

    def _summarize(self, code: ExitCode) -> BatchRecord:
        ended = time.time()
        release = self._config.release
        record = BatchRecord(
            run_id=self._run_id,
            name=release.name if release else _name_batch(list(self._records)),
            release=release.name if release else None,
            command=[redact(argument) for argument in self._command],
            started_at=_timestamp(self._started),
            ended_at=_timestamp(ended),
            duration_s=ended - self._started,
            exit_code=code,
            git_commit=_read_git_commit(),
            exports=[self._records[plan.spec.id] for plan in self._planned],
            tracking=_without_credentials(self._config.tracking),
            versions=library_versions(),
        )
        self._run_directory.write_summary(record)
        self._log_event("batch_ended", exit_code=int(code))
        return record

    def _track(self, record: BatchRecord) -> ExitCode:
        report = self._tracker.finish(self._run_directory, record)
        for line in report.lines:
            self._display.say(line)
        code = ExitCode(record.exit_code)
        return ExitCode.SYNC_BEHIND if report.is_behind and code is ExitCode.OK else code

    def _point_to_failures(self, record: BatchRecord) -> None:
        failed = [export for export in record.exports if export.failure is not None]
        for export in failed[:5]:
            assert export.failure is not None
            self._display.complain(f"{export.id}: {export.failure}")
            self._display.complain(f"  {export.failure.hint}; see {export.directory}/")
        if len(failed) > 5:
            self._display.complain(f"and {len(failed) - 5} more: {self._run_directory.summary}")

    def _log_event(self, event: str, **details: object) -> None:
        line = json.dumps({"time": _timestamp(time.time()), "event": event, **details})
        with self._run_directory.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _common_settings(jobs: Sequence[Job]) -> Config:
    first = jobs[0].config
    for name in ("executor", "tracking", "output", "release", "force"):
        if any(getattr(job.config, name) != getattr(first, name) for job in jobs):
            raise ConfigError(f"{name}: differs between the jobs of the sweep; it holds for a whole batch")
    if first.executor.workers is not None and first.executor.workers < 1:
        raise ConfigError(f"executor.workers: {first.executor.workers} must be at least 1")
    if first.executor.timeout_s <= 0:
        raise ConfigError(f"executor.timeout_s: {first.executor.timeout_s} must be more than 0")
    return first


def _make_executor(config: Config) -> Executor:
    return LocalExecutor(config.executor.workers or count_cores(), config.executor.timeout_s)


def _record_result(plan: PlannedExport, result: ExportResult, directory: Path) -> ExportRecord:
    outcomes = {Status.passed: Outcome.passed, Status.failed: Outcome.failed, Status.cancelled: Outcome.cancelled}
    failure: Failure | None = result.failure
    return ExportRecord(
        id=result.id,
        model=result.spec.model.name,
        outcome=outcomes[result.status] if plan.reason else Outcome.up_to_date,
        failure=failure,
        directory=str(directory),
        reason=plan.reason,
        duration_s=result.duration_s,
        opset_version=result.spec.export.opset_version,
        precision=result.spec.precision.name.value,
        max_abs_diff=result.max_abs_diff,
        export_peak_bytes=result.export_peak_bytes,
        size_bytes=result.size_bytes,
        num_nodes=result.num_nodes,
        latency_s=result.latency_s,
    )


def _without_credentials(options: TrackingOptions) -> TrackingOptions:
    # The summary is shown to everyone; who catches up later has the credentials in the environment.
    return dataclasses.replace(options, uri=redact(options.uri) if options.uri else None)


def _name_batch(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _read_git_commit() -> str:
    """The commit of the working directory, with `-dirty` where tracked files differ; empty outside of git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607  (the user's git)
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
