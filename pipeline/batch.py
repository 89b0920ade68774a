"""One invocation from start to end: plan, run workers, publish what passed, bring the trackers up to date."""

from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, FailureKind, StorageError, WorkerError, choose_worst
from exporter.lock import lock_output
from exporter.publication import publish
from exporter.result import ExportResult, Status
from exporter.spec import Device
from exporter.storage_faults import explain_fault, is_fault, storage_faults
from pipeline.config import Config
from pipeline.executor import Ended, Ending, Executor, Notice, Pulse, Started, Task
from pipeline.executor_choice import count_workers, make_executor
from pipeline.expectation import expect, find_recent_runs
from pipeline.interruption import Interruption, Stopped
from pipeline.ledger import Ledger, record_cancelled, record_result
from pipeline.outcomes import collect_result, fail_result
from pipeline.plan import Job, PlannedExport, Planner
from pipeline.preloads import find_preloads
from pipeline.recovery import recover
from pipeline.reporter import Reporter
from pipeline.streams import Diversion
from registry_sync.failure_ledger import is_excused
from registry_sync.metrics import write_metrics
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.tracker import Tracker

__all__ = ["Job", "run_batch"]

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
    exports = Path(config.output.exports)
    planner = Planner(config)
    executor = executor or make_executor(config)
    with Diversion() as diversion, Interruption(lambda: executor.close(at_once=True)) as interruption:
        try:
            with lock_output(exports):
                recovered = recover(config.output)
                is_prepared = False
                for job in chain([first], jobs):
                    is_forked = job.spec.export.device is Device.cpu
                    if planner.add(job) and is_forked and not is_prepared:
                        # Warms up while the next job is composed; nothing is exported before all are sound.
                        executor.prepare()
                        is_prepared = True
                batch = _Batch(config, planner.finish(), command, executor, interruption, diversion)
                return batch.run(recovered)
        except Stopped as stopped:
            # Before anything had begun.
            return stopped.code
        except OSError as error:
            if not is_fault(error):
                raise
            raise explain_fault(error, exports, "output.exports") from error
        finally:
            with interruption.deferred():
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
        diversion: Diversion,
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
        self._diversion = diversion
        durations_s = {name: self._expected[name].duration_s for name in self._order_due()}
        names = [plan.spec.id for plan in planned]
        self._reporter = Reporter(self._ledger, names, durations_s, count_workers(config, len(self._due)), diversion)
        self._display = self._reporter.display
        self._tracker = Tracker(config.tracking, config.release)
        self._tasks = {name: self._make_task(name) for name in self._due}
        # How often each export has been begun.
        self._num_tries = dict.fromkeys(self._due, 0)
        # Of the disk, with what we write ourselves; or of the machine, with workers.
        self._problem: StorageError | WorkerError | None = None

    def _order_due(self) -> list[str]:
        """The longest first, so that no long one is left for the end; of what is new nobody knows."""
        return sorted(self._due, key=lambda name: -(self._expected[name].duration_s or float("inf")))

    def run(self, recovered: Sequence[RunDirectory] = ()) -> ExitCode:
        """Carry the batch out.

        Args:
            recovered: Killed runs that were put in order before.
        """
        if self._due:
            self._executor.require(list(self._tasks.values()))
        with self._interruption.deferred():
            self._ledger.open(**self._reporter.describe())
            self._export(recovered)
            record = self._close_ledger()
            if record is None:
                return self._interruption.code or ExitCode.STORAGE
            self._display.show_table(record)
            code = ExitCode(record.exit_code)
            if self._interruption.code is None and self._problem is None:
                with suppress(Stopped), self._interruption.heard():
                    code = self._track(record)
            self._close(record)
        return self._interruption.code or code

    def _close(self, record: BatchRecord) -> None:
        """Say what is left to do."""
        if self._interruption.code is not None or self._problem is not None:
            self._display.say(f"stopped; what is finished is kept in {self._exports}/")
            if record.has_news and self._config.tracking.mlflow:
                self._display.say(f"to log it to MLflow: python -m registry_sync sync {self._ledger.run.path}")
        self._point_to_failures(record)

    def _export(self, recovered: Sequence[RunDirectory]) -> None:
        """Run what is due."""
        try:
            self._divert()
            self._display.begin()
            for run in recovered:
                self._display.say(f"{run.path} was killed; its record is complete now: {run.summary}", "yellow")
            self._report_up_to_date()
            if self._due:
                self._tracker.begin()
                self._run_workers()
        except StorageError as error:
            # What is published is whole, and has its result.
            self._problem = error
        except OSError as error:
            if not is_fault(error):
                raise
            self._problem = explain_fault(error, self._ledger.run.path, "output.runs")
        except WorkerError as error:
            self._problem = error
            self._ledger.keep_output(error.output)
        finally:
            self._display.close()
        if self._problem is not None:
            self._display.complain(f"the batch was stopped: {self._problem}")

    def _divert(self) -> None:
        log = self._ledger.run.log
        with storage_faults(log, "output.runs"):
            self._diversion.keep_in(log)

    def _close_ledger(self) -> BatchRecord | None:
        """Record what became of the batch; None if the disk would not have that, after telling it."""
        try:
            for name, plan in self._due.items():
                if name not in self._ledger.records:
                    directory = self._ledger.discard(name)
                    self._reporter.end(record_cancelled(plan, directory, self._num_tries[name]))
            return self._ledger.close(self._interruption.code or self._judge())
        except StorageError as error:
            self._display.complain(f"the record of this run is left to the next one: {error}")
            self._display.say(f"stopped; what is finished is kept in {self._exports}/")
            return None

    def _report_up_to_date(self) -> None:
        for plan in self._planned:
            if plan.published is not None:
                self._reporter.end(record_result(plan.published, "", self._exports / plan.spec.id, 0))
                self._write_metrics(plan.published)

    def _run_workers(self) -> None:
        """Run what is due, the longest first; then once more, each alone, what may do better so."""
        again = self._run_round(self._order_due(), alone=False)
        for name in again:
            # The log of the first try says why there is a second.
            directory = ExportDirectory(self._ledger.run.export_directory(name))
            directory.clear()
            if directory.log.exists():
                directory.log.rename(directory.earlier_log)
        self._run_round(again, alone=True)

    def _run_round(self, names: Sequence[str], *, alone: bool) -> list[str]:
        """Run a worker for each; returns those that are to be tried again."""
        tasks = [self._tasks[name] for name in names]
        again = []
        with closing(self._executor.run(tasks, alone=alone)) as events:
            for event in events:
                if isinstance(event, Started):
                    self._num_tries[event.task.id] += 1
                    self._reporter.start(event.task)
                elif isinstance(event, Notice):
                    self._reporter.notice(event.text)
                elif isinstance(event, Pulse):
                    self._reporter.see(event)
                elif self._finish(self._due[event.task.id], event):
                    again.append(event.task.id)
                # Not before a pulse: of several that end at once all are kept.
                if self._interruption.code is not None and isinstance(event, Pulse):
                    break
        return [] if self._interruption.code is not None else again

    def _make_task(self, name: str) -> Task:
        spec = self._due[name].spec
        on_gpu = spec.export.device is Device.cuda
        directory = self._ledger.run.export_directory(name)
        return Task(name, directory, self._expected[name].memory_bytes, on_gpu, find_preloads(spec))

    def _finish(self, plan: PlannedExport, ended: Ended) -> bool:
        """Publish an export that passed and record how it ended; True if it is to be tried once more instead."""
        result = collect_result(plan.spec, ended)
        num_tries = self._num_tries[plan.spec.id]
        if result.failure is not None and num_tries == 1 and _may_do_better(result.failure.kind, ended):
            self._reporter.retry(plan.spec.id, result.failure)
            return True
        self._ledger.keep_result(result)
        if result.status is Status.passed:
            result = self._publish(plan, result, ended)
        is_published = result.status is Status.passed
        directory = self._exports / plan.spec.id if is_published else ended.task.directory
        self._reporter.end(record_result(result, plan.reason, directory, num_tries))
        if is_published:
            self._write_metrics(result)
        return False

    def _publish(self, plan: PlannedExport, result: ExportResult, ended: Ended) -> ExportResult:
        """Publish an export; returns its result, which is a failed one if that did not work."""
        source = ExportDirectory(ended.task.directory)
        try:
            publish(source, self._exports / plan.spec.id, result)
        except ValueError as error:
            kind, cause = FailureKind.corrupt_output, str(error)
        except OSError as error:
            kind, cause = FailureKind.storage_error, str(error)
        else:
            return result
        result = fail_result(plan.spec, source, kind, cause, ended.duration_s)
        self._ledger.keep_result(result)
        return result

    def _write_metrics(self, result: ExportResult) -> None:
        """Whatever became of it in this run: an earlier one may have been killed before it wrote them."""
        folder = self._config.output.metrics
        with storage_faults(Path(folder, f"{result.id}.json"), "output.metrics"):
            write_metrics(folder, result)

    def _judge(self) -> ExitCode:
        known = self._config.release.known_failures if self._config.release else []
        today = datetime.now(UTC).date()
        failed = [record for record in self._ledger.records.values() if not is_excused(record, known, today)]
        kinds = {record.failure.kind for record in failed if record.failure is not None}
        if FailureKind.internal_error in kinds:
            return ExitCode.BUG
        if self._problem is not None or FailureKind.storage_error in kinds:
            return ExitCode.STORAGE
        return ExitCode.EXPORT_FAILED if kinds else ExitCode.OK

    def _track(self, record: BatchRecord) -> ExitCode:
        report = self._tracker.finish(self._ledger.run, record)
        behind = ExitCode.SYNC_BEHIND if report.is_behind else ExitCode.OK
        code = choose_worst(ExitCode(record.exit_code), report.release_code, behind)
        if self._config.tracking.mlflow or self._config.tracking.dvc or self._config.release:
            self._reporter.end_tracking(report, code)
        return code

    def _point_to_failures(self, record: BatchRecord) -> None:
        failed = [(export, export.failure) for export in record.exports if export.failure is not None]
        for export, failure in failed[:_MAX_FAILURES]:
            self._display.complain(f"{export.id}: {failure}")
            self._display.complain(f"  {failure.hint}; see {export.directory}/")
        if len(failed) > _MAX_FAILURES:
            self._display.complain(f"and {len(failed) - _MAX_FAILURES} more: {self._ledger.run.summary}")
        if failed and self._diversion.has_words:
            self._display.complain(f"what libraries printed meanwhile: {self._ledger.run.log}")


def _may_do_better(kind: FailureKind, ended: Ended) -> bool:
    """Whether a failure is one that another try may not have; the same code at the same sizes fails the same way."""
    if ended.ending is Ending.lost:
        return True
    return kind is FailureKind.out_of_memory and not ended.was_alone
