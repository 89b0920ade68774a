"""One invocation from start to end: plan, run workers, publish what passed, bring the trackers up to date."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from exporter.directory import ExportDirectory, write_json
from exporter.errors import ConfigError, ExitCode, FailureKind
from exporter.failures import is_storage_error
from exporter.result import ExportResult, Status
from exporter.spec import ExportSpec
from pipeline.config import Config
from pipeline.display import Display
from pipeline.executor import Ended, Executor, Started, Task
from pipeline.ledger import Ledger, record_cancelled, record_result
from pipeline.local_executor import LocalExecutor, count_cores
from pipeline.lock import lock_output
from pipeline.outcomes import collect_result, fail_result
from pipeline.plan import PlannedExport, plan_exports, require_sound
from pipeline.publication import publish
from registry_sync.metrics import collect_metrics
from registry_sync.record import BatchRecord, ExportRecord
from registry_sync.tracker import Tracker

__all__ = ["Job", "run_batch"]

# Failed exports that are told one by one; standard error shall stay under 15 lines.
_MAX_FAILURES = 5


@dataclass(frozen=True)
class Job:
    """One spec and the settings of the run it came with."""

    spec: ExportSpec
    config: Config


class Terminated(BaseException):
    """SIGTERM reached us; like Ctrl-C, it must pass every `except Exception`."""


def run_batch(jobs: Sequence[Job], command: Sequence[str]) -> ExitCode:
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
    """The parts of one invocation and how they work together."""

    def __init__(self, config: Config, planned: Sequence[PlannedExport], command: Sequence[str]) -> None:
        self._config = config
        self._planned = planned
        self._due = {plan.spec.id: plan for plan in planned if plan.reason}
        self._exports = Path(config.output.exports)
        self._ledger = Ledger(config, planned, command)
        self._display = Display(len(planned))
        self._tracker = Tracker(config.tracking)

    def run(self) -> ExitCode:
        stopped_by = ExitCode.OK
        self._ledger.open()
        self._display.begin()
        try:
            self._report_up_to_date()
            if self._due:
                self._tracker.begin()
                self._run_workers()
        except KeyboardInterrupt:
            stopped_by = ExitCode.INTERRUPTED
        except Terminated:
            stopped_by = ExitCode.TERMINATED
        finally:
            self._display.close()
        for name, plan in self._due.items():
            if name not in self._ledger.records:
                self._report(record_cancelled(plan, self._ledger.run.export_directory(name)))
        record = self._ledger.close(stopped_by or self._judge())
        self._display.show_table(record)
        code = ExitCode(record.exit_code)
        if stopped_by:
            self._display.say(f"stopped; what is finished is kept in {self._exports}/")
            if record.has_news and self._config.tracking.mlflow:
                self._display.say(f"to log it to MLflow: python -m registry_sync sync {self._ledger.run.path}")
        else:
            code = self._track(record)
        self._point_to_failures(record)
        return code

    def _report_up_to_date(self) -> None:
        for plan in self._planned:
            if plan.published is not None:
                if not self._metrics_file(plan.spec.id).exists():
                    self._write_metrics(plan.published)
                self._report(record_result(plan, plan.published, self._exports / plan.spec.id))

    def _run_workers(self) -> None:
        tasks = [Task(name, self._ledger.run.export_directory(name)) for name in self._due]
        with closing(_make_executor(self._config).run(tasks)) as events:
            for event in events:
                if isinstance(event, Started):
                    self._ledger.log_event("export_started", export=event.task.id)
                    self._display.show_started(event.task)
                elif isinstance(event, Ended):
                    self._finish(self._due[event.task.id], event)
                else:
                    self._display.refresh()

    def _finish(self, plan: PlannedExport, ended: Ended) -> None:
        result = collect_result(plan.spec, ended)
        directory = ended.task.directory
        if result.status is Status.passed:
            result = self._publish(plan, result, ended)
        if result.status is Status.passed:
            directory = self._exports / plan.spec.id
            self._write_metrics(result)
        # exports/ shows the last good result of an export; this is the one of this run.
        write_json(self._ledger.run.result(plan.spec.id), result)
        self._report(record_result(plan, result, directory))

    def _publish(self, plan: PlannedExport, result: ExportResult, ended: Ended) -> ExportResult:
        """Publish an export; returns its result, which is a failed one if that did not work."""
        source = ExportDirectory(ended.task.directory)
        try:
            publish(source, self._exports / plan.spec.id, result)
        except ValueError as error:
            return fail_result(plan.spec, source, FailureKind.corrupt_output, str(error), ended.duration_s)
        except OSError as error:
            if not is_storage_error(error):
                raise
            return fail_result(plan.spec, source, FailureKind.storage_error, str(error), ended.duration_s)
        return result

    def _metrics_file(self, name: str) -> Path:
        return Path(self._config.output.metrics) / f"{name}.json"

    def _write_metrics(self, result: ExportResult) -> None:
        path = self._metrics_file(result.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, collect_metrics(result))

    def _report(self, record: ExportRecord) -> None:
        self._ledger.keep(record)
        self._display.show_ended(record)

    def _judge(self) -> ExitCode:
        kinds = {record.failure.kind for record in self._ledger.records.values() if record.failure is not None}
        if FailureKind.internal_error in kinds:
            return ExitCode.BUG
        if FailureKind.storage_error in kinds:
            return ExitCode.STORAGE
        return ExitCode.EXPORT_FAILED if kinds else ExitCode.OK

    def _track(self, record: BatchRecord) -> ExitCode:
        report = self._tracker.finish(self._ledger.run, record)
        for line in report.lines:
            self._display.say(line)
        code = ExitCode(record.exit_code)
        return ExitCode.SYNC_BEHIND if report.is_behind and code is ExitCode.OK else code

    def _point_to_failures(self, record: BatchRecord) -> None:
        failed = [(export, export.failure) for export in record.exports if export.failure is not None]
        for export, failure in failed[:_MAX_FAILURES]:
            self._display.complain(f"{export.id}: {failure}")
            self._display.complain(f"  {failure.hint}; see {export.directory}/")
        if len(failed) > _MAX_FAILURES:
            self._display.complain(f"and {len(failed) - _MAX_FAILURES} more: {self._ledger.run.summary}")


def _common_settings(jobs: Sequence[Job]) -> Config:
    first = jobs[0].config
    for name in ("executor", "tracking", "output", "release", "force"):
        if any(getattr(job.config, name) != getattr(first, name) for job in jobs):
            raise ConfigError(f"{name}: differs between the jobs of the sweep; it holds for a whole batch")
    models = [job.spec.model.name for job in jobs]
    if first.release is not None and first.release.models and set(models) != set(first.release.models):
        wrong = sorted(set(models) ^ set(first.release.models))
        raise ConfigError(
            f"release: {first.release.name!r} is {len(first.release.models)} models, and this run is not of those "
            f"(differs in {', '.join(wrong)}); leave out +release or +model"
        )
    if first.executor.workers is not None and first.executor.workers < 1:
        raise ConfigError(f"executor.workers: {first.executor.workers} must be at least 1")
    if not 0 < first.executor.timeout_s < float("inf"):
        raise ConfigError(f"executor.timeout_s: {first.executor.timeout_s} must be more than 0")
    return first


def _make_executor(config: Config) -> Executor:
    return LocalExecutor(config.executor.workers or count_cores(), config.executor.timeout_s)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
