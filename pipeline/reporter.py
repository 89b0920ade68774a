"""Tells what happens in a batch: to the person at the display, and to machines in events.jsonl."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.result import Failure
from pipeline.display import Display
from pipeline.event_log import EVENTS_VERSION
from pipeline.executor import Pulse, Task
from pipeline.ledger import Ledger
from pipeline.progress import BatchProgress
from pipeline.streams import Diversion
from registry_sync.record import ExportRecord
from registry_sync.tracker import SyncReport

__all__ = ["Reporter"]

# Reading the step of a hundred exports takes a millisecond.
_LOOK_S = 0.5


class Reporter:
    """Hears of everything once, in order.

    Args:
        ledger: Keeps the records and the events.
        exports: The ids of all exports of the batch.
        expected_s: Of each export that is due, its last duration, if it has one; in the order in which they start.
        workers: At a time.
        streams: Our own.
    """

    def __init__(
        self,
        ledger: Ledger,
        exports: Sequence[str],
        expected_s: Mapping[str, float | None],
        workers: int,
        streams: Diversion,
    ) -> None:
        self._ledger = ledger
        self._exports = exports
        self._progress = BatchProgress(len(exports), expected_s, workers, time.monotonic())
        self.display = Display(self._progress, streams.output, streams.errors)
        self._directories: dict[str, Path] = {}
        self._looked_s = 0.0

    def describe(self) -> dict[str, object]:
        """The details of the first event: what is to be done and by whom, also for those who come and find us dead."""
        return {
            "schema_version": EVENTS_VERSION,
            "exports": list(self._exports),
            "expected_s": dict(self._progress.expected_s),
            "workers": self._progress.workers,
            "command": self._ledger.command,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }

    def start(self, task: Task) -> None:
        """A worker took an export up."""
        started = self._progress.start(task.id, time.monotonic())
        self._directories[task.id] = task.directory
        self._ledger.log_event("export_started", export=task.id, num_tries=started.num_tries)
        self.display.show_started(task.id)

    def see(self, pulse: Pulse) -> None:
        """Look after those that run."""
        self._progress.see_memory(pulse.rss_bytes)
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self._look_at_steps()
        self.display.refresh()

    def _look_at_steps(self) -> None:
        for name, one in self._progress.running.items():
            step = ExportDirectory(self._directories[name]).read_current_step()
            if step is not None and step.value != one.step:
                one.step = step.value
                self._ledger.log_event("export_step", export=name, step=one.step, rss_bytes=one.rss_bytes)

    def notice(self, text: str) -> None:
        """Something of interest to a person, though nothing fails of it."""
        self._ledger.log_event("notice", text=text)
        self.display.show_notice(text)

    def retry(self, name: str, failure: Failure) -> None:
        """A first try has ended in a way that says nothing of the export."""
        self._progress.retry(name)
        self._ledger.log_event("export_retried", export=name, kind=failure.kind.value, cause=failure.cause)
        self.display.show_retried(name, failure)

    def end(self, record: ExportRecord) -> None:
        """An export has its record."""
        self._progress.end(record.id, record.outcome, time.monotonic())
        self._ledger.keep(record)
        self.display.show_ended(record)

    def end_tracking(self, report: SyncReport, exit_code: int) -> None:
        """MLflow and DVC were told, or could not be."""
        self._ledger.log_event("tracking_ended", is_behind=report.is_behind, exit_code=int(exit_code))
        for line in report.lines:
            self.display.say(line)
