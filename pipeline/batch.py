"""One invocation from start to end: plan, run workers, publish what passed, bring the trackers up to date."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from exporter.directory import ExportDirectory, write_json
from exporter.errors import ExitCode, FailureKind, WorkerError
from exporter.failures import is_storage_error
from exporter.result import ExportResult, Status
from exporter.spec import Device
from pipeline.admission import find_budget
from pipeline.config import Config
from pipeline.display import Display
from pipeline.executor import Ended, Ending, Executor, Notice, Pulse, Started, Task
from pipeline.expectation import expect, find_recent_runs
from pipeline.interruption import Interruption, Stopped
from pipeline.ledger import Ledger, record_cancelled, record_result
from pipeline.local_executor import LocalExecutor, count_cores
from pipeline.lock import lock_output
from pipeline.outcomes import collect_result, fail_result
from pipeline.plan import Job, PlannedExport, Planner
from pipeline.publication import publish
from registry_sync.metrics import collect_metrics
from registry_sync.record import BatchRecord, ExportRecord
from registry_sync.tracker import Tracker

__all__ = ["Job", "make_executor", "run_batch"]

# Failed exports that are told one by one; standard error shall stay under 15 lines.
_MAX_FAILURES = 5


def run_batch(jobs: Iterable[Job], command: Sequence[str], executor: Executor | None = None) -> ExitCode:
    """Export what is not up to date, and say how it went.

    Args:
        jobs: At least one; they have to agree on the settings of the run (executor, tracking, output). Taken one by
            one; what taking one raises goes to the caller, and nothing is exported.
        command: The command line's arguments, for the record.
        executor: Runs the workers, in the place of the one that the config asks for.

    Raises:
        ModelpressError: Nothing could be started: the jobs contradict each other, the output is locked or not
            writable.
    """
    jobs = iter(jobs)
    first = next(jobs)
    config = first.config
    planner = Planner(config)
    executor = executor or make_executor(config)
    with Interruption(lambda: executor.close(at_once=True)) as interruption:
        try:
            with lock_output(Path(config.output.exports)):
                for job in chain([first], jobs):
                    if planner.add(job):
                        # Warms up while the next job is composed; nothing is exported before all are sound.
                        executor.prepare()
                return _Batch(config, planner.finish(), command, executor, interruption).run()
        except Stopped as stopped:
            # Before anything had begun.
            return stopped.code
        finally:
            executor.close()


class _Batch:
    """The parts of one invocation and how they work together."""

    def __init__(
        self,
        config: Config,
        planned: Sequence[PlannedExport],
        command: Sequence[str],
        executor: Executor,
        interruption: Interruption,
    ) -> None:
        self._config = config
        self._planned = planned
        self._due = {plan.spec.id: plan for plan in planned if plan.reason}
        self._exports = Path(config.output.exports)
        recent = find_recent_runs(Path(config.output.runs)) if self._due else []
        self._expected = {name: expect(plan.spec, self._exports, recent) for name, plan in self._due.items()}
        self._executor = executor
        self._interruption = interruption
        self._ledger = Ledger(config, planned, command)
        self._display = Display(len(planned))
        self._tracker = Tracker(config.tracking)
        # How often each export has been begun.
        self._num_tries = dict.fromkeys(self._due, 0)
        # Of the disk, with our own records; or of the machine, with workers.
        self._problem: OSError | WorkerError | None = None

    def run(self) -> ExitCode:
        with self._interruption.deferred():
            record = self._export()
            self._display.show_table(record)
        code = ExitCode(record.exit_code)
        stopped_by = self._interruption.code
        if stopped_by is None and self._problem is None:
            try:
                code = self._track(record)
            except Stopped as stopped:
                stopped_by = stopped.code
        if stopped_by is not None or self._problem is not None:
            self._display.say(f"stopped; what is finished is kept in {self._exports}/")
            if record.has_news and self._config.tracking.mlflow:
                self._display.say(f"to log it to MLflow: python -m registry_sync sync {self._ledger.run.path}")
        self._point_to_failures(record)
        return stopped_by or code

    def _export(self) -> BatchRecord:
        """Run what is due, and record what became of it."""
        self._ledger.open()
        self._display.begin()
        try:
            self._report_up_to_date()
            if self._due:
                self._tracker.begin()
                self._run_workers()
        except OSError as error:
            # What is published is whole, and what is not recorded was not published in this run.
            if not is_storage_error(error):
                raise
            self._problem = error
        except WorkerError as error:
            self._problem = error
            self._ledger.keep_output(error.output)
        finally:
            self._display.close()
        for name, plan in self._due.items():
            if name not in self._ledger.records:
                record = record_cancelled(plan, self._ledger.run.export_directory(name), self._num_tries[name])
                self._report(record)
        if self._problem is not None:
            self._display.complain(f"the batch was stopped: {self._problem}")
        return self._ledger.close(self._interruption.code or self._judge())

    def _report_up_to_date(self) -> None:
        for plan in self._planned:
            if plan.published is not None:
                if not self._metrics_file(plan.spec.id).exists():
                    self._write_metrics(plan.published)
                self._report(record_result(plan, plan.published, self._exports / plan.spec.id, 0))

    def _run_workers(self) -> None:
        """Run what is due, the longest first; then once more, each alone, what may do better so."""
        due = sorted(self._due, key=lambda name: -(self._expected[name].duration_s or float("inf")))
        again = self._run_round(due, alone=False)
        for name in again:
            # The log of the first try says why there is a second.
            directory = ExportDirectory(self._ledger.run.export_directory(name))
            directory.clear()
            if directory.log.exists():
                directory.log.rename(directory.earlier_log)
        self._run_round(again, alone=True)

    def _run_round(self, names: Sequence[str], *, alone: bool) -> list[str]:
        """Run a worker for each; returns those that are to be tried again."""
        tasks = [self._make_task(name) for name in names]
        again = []
        with closing(self._executor.run(tasks, alone=alone)) as events:
            for event in events:
                if isinstance(event, Started):
                    self._num_tries[event.task.id] += 1
                    self._ledger.log_event("export_started", export=event.task.id)
                    self._display.show_started(event.task)
                elif isinstance(event, Notice):
                    self._ledger.log_event("notice", text=event.text)
                    self._display.say(event.text, "yellow")
                elif isinstance(event, Pulse):
                    self._display.refresh(event)
                elif self._finish(self._due[event.task.id], event):
                    again.append(event.task.id)
                if self._interruption.code is not None:
                    break
        return [] if self._interruption.code is not None else again

    def _make_task(self, name: str) -> Task:
        on_gpu = self._due[name].spec.export.device is Device.cuda
        directory = self._ledger.run.export_directory(name)
        return Task(name, directory, self._expected[name].memory_bytes, on_gpu)

    def _finish(self, plan: PlannedExport, ended: Ended) -> bool:
        """Publish an export that passed and record how it ended; True if it is to be tried once more instead."""
        result = collect_result(plan.spec, ended)
        num_tries = self._num_tries[plan.spec.id]
        if result.failure is not None and num_tries == 1 and _may_do_better(result.failure.kind, ended):
            self._ledger.log_event("export_retried", export=plan.spec.id, cause=result.failure.cause)
            self._display.show_retried(ended.task, result.failure)
            return True
        directory = ended.task.directory
        if result.status is Status.passed:
            result = self._publish(plan, result, ended)
        if result.status is Status.passed:
            directory = self._exports / plan.spec.id
            self._write_metrics(result)
        # exports/ shows the last good result of an export; this is the one of this run.
        write_json(self._ledger.run.result(plan.spec.id), result)
        self._report(record_result(plan, result, directory, num_tries))
        return False

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
        if self._problem is not None or FailureKind.storage_error in kinds:
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


def make_executor(config: Config) -> Executor:
    """The executor that a config asks for."""
    options = config.executor
    return LocalExecutor(options.workers or count_cores(), options.timeout_s, find_budget(options.memory_budget))


def _may_do_better(kind: FailureKind, ended: Ended) -> bool:
    """Whether a failure is one that another try may not have; the same code at the same sizes fails the same way."""
    if ended.ending is Ending.lost:
        return True
    return kind is FailureKind.out_of_memory and not ended.was_alone
