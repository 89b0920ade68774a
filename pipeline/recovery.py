"""What a start does about runs that were killed: no export of theirs is without its outcome, and no litter is left.

A run holds the lock of its exports/ for its life. Who holds that lock now knows, therefore, that every run of that
exports/ without a summary is dead, however it died and on whichever machine; a lock of the run's own would say no more,
and would not guard the exports/ that has to be put in order with it. Runs of other exports/ may share runs/, and may be
alive: they are left alone.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode
from exporter.files import read_json, remove_cut_off
from exporter.plain_data import DataError, from_plain
from exporter.publication import restore_replaced
from exporter.result import ExportResult, Status
from exporter.storage_faults import storage_faults
from pipeline.config import OutputOptions
from pipeline.event_log import append_event, read_events
from pipeline.ledger import RunPlan, place_of_start, record_result
from pipeline.worker_process import kill_marked
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory

__all__ = ["recover"]


def recover(output: OutputOptions) -> list[RunDirectory]:
    """Put in order what killed runs left, and give each its summary.

    Their exports are those that were published, those that had failed, and the rest, which is cancelled; the exit code
    is 137. Cut off itself, it is done again at the next start.

    Args:
        output: The lock of its exports/ is held by the caller.

    Returns:
        The runs that were put in order.

    Raises:
        StorageError: The disk would not.
    """
    exports, runs = Path(output.exports), Path(output.runs)
    with storage_faults(exports, "output.exports"):
        restore_replaced(exports)
    with storage_faults(runs, "output.runs"):
        starting = place_of_start(runs, exports)
        if starting.exists():
            shutil.rmtree(starting)
        dead = [
            (run, plan)
            for run, plan in _find_unfinished(runs)
            if (run.path / plan.exports).resolve() == exports.resolve()
        ]
    for run, plan in dead:
        with storage_faults(run.path, "output.runs"):
            _settle(run, plan, exports)
        with storage_faults(Path(output.metrics), "output.metrics"):
            _remove_cut_off_metrics(Path(output.metrics), plan)
    return [run for run, _ in dead]


def _find_unfinished(runs: Path) -> Iterator[tuple[RunDirectory, RunPlan]]:
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        run = RunDirectory(path)
        if path.name.startswith(".") or run.summary.exists():
            continue
        try:
            plan = from_plain(RunPlan, read_json(run.plan))
        except (FileNotFoundError, NotADirectoryError, DataError):
            # Something else, or of a modelpress that wrote other plans.
            continue
        yield run, plan


def _settle(run: RunDirectory, plan: RunPlan, exports: Path) -> None:
    # Workers died with their parent; what they had started and let go of may be at work yet.
    kill_marked(str(run.path.resolve()))
    # A part of the run may have been removed by hand.
    events = list(read_events(run.events)) if run.events.exists() else []
    records = [_judge(run, record, exports, events) for record in plan.summary.exports]
    for record in records:
        _clear(ExportDirectory(run.export_directory(record.id)), record.outcome)
    for folder in (run.path, run.results):
        if folder.is_dir():
            remove_cut_off(folder)
    append_event(run.events, "batch_ended", exit_code=int(ExitCode.KILLED))
    # Last: from here on there is nothing more to be done about this run.
    run.write_summary(_summarize(plan.summary, records, events))


def _judge(run: RunDirectory, pending: ExportRecord, exports: Path, events: list[dict[str, Any]]) -> ExportRecord:
    """How an export ended, by what is there."""
    if pending.outcome is not Outcome.cancelled:
        return pending
    num_tries = sum(event.get("event") == "export_started" and event.get("export") == pending.id for event in events)
    result = _read_result(run.result(pending.id))
    if result is None:
        return dataclasses.replace(pending, num_tries=num_tries)
    directory = Path(pending.directory)
    if result.status is Status.passed:
        directory = exports / pending.id
        # The result is kept before its export is published.
        if _read_result(ExportDirectory(directory).result) != result:
            return dataclasses.replace(pending, num_tries=num_tries)
    return record_result(result, pending.reason, directory, num_tries)


def _read_result(path: Path) -> ExportResult | None:
    try:
        return from_plain(ExportResult, read_json(path))
    except (FileNotFoundError, DataError):
        return None


def _clear(directory: ExportDirectory, outcome: Outcome) -> None:
    """Remove what takes much room and is good for nothing; logs and reports stay."""
    if not directory.path.is_dir():
        return
    if outcome is Outcome.passed:
        # It holds the older export, which the new one has replaced.
        shutil.rmtree(directory.path)
    elif outcome is Outcome.cancelled:
        directory.clear()
    else:
        directory.clear_unfinished()


def _remove_cut_off_metrics(metrics: Path, plan: RunPlan) -> None:
    # Other runs may be writing theirs.
    for record in plan.summary.exports:
        for path in metrics.glob(f".{record.id}.json.*"):
            path.unlink(missing_ok=True)


def _summarize(pending: BatchRecord, records: list[ExportRecord], events: list[dict[str, Any]]) -> BatchRecord:
    """The summary: its end is that of the last thing that is known of the run."""
    ended_at = max([pending.started_at, *(time for event in events if _is_time(time := str(event.get("time", ""))))])
    duration_s = (datetime.fromisoformat(ended_at) - datetime.fromisoformat(pending.started_at)).total_seconds()
    return dataclasses.replace(pending, exports=records, ended_at=ended_at, duration_s=duration_s)


def _is_time(text: str) -> bool:
    """Whether it is one of ours: UTC, as ISO 8601 has it. A damaged line must not stand in every next run's way."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
