"""What a person sees: live progress on a terminal, a line for each export elsewhere, and a table at the end."""

import sys
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from exporter.directory import ExportDirectory
from exporter.result import Failure
from pipeline.executor import Pulse, Task
from registry_sync.record import BatchRecord, ExportRecord, Outcome

__all__ = ["Display"]

_WIDTH = 160
_STYLES = {
    Outcome.passed: "green",
    Outcome.up_to_date: "cyan",
    Outcome.failed: "bold red",
    Outcome.unproven: "bold yellow",
    Outcome.cancelled: "yellow",
}


class _Console(Console):
    """Leaves it to us what happens when the reader of our output goes away; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Display:
    """Writes to standard output; a terminal gets colours and a live view of the running exports."""

    def __init__(self, num_exports: int) -> None:
        self._console = _Console(highlight=False)
        if not self._console.is_terminal:
            # A file or a pipe has no width; rich would fold the table at 80.
            self._console = _Console(highlight=False, width=_WIDTH)
        self._num_exports = num_exports
        self._num_ended = 0
        self._is_broken = False
        self._progress: Progress | None = None
        self._rows: dict[str, tuple[TaskID, Task]] = {}

    def begin(self) -> None:
        """Open the live view, where there is a terminal for it."""
        if not self._console.is_terminal or self._num_exports == 0:
            return
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._total = self._progress.add_task("starting workers", total=self._num_exports)
        self._progress.start()

    def close(self) -> None:
        """Take the live view away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, text: str, style: str = "") -> None:
        """One line. Who reads us may go away: the exports matter more than the words about them."""
        if self._is_broken:
            return
        try:
            self._console.print(text, style=style or None, markup=False, soft_wrap=True)
        except OSError:
            self._is_broken = True

    def complain(self, text: str) -> None:
        """One line on standard error."""
        with suppress(OSError):
            sys.stderr.write(f"{text}\n")

    def show_started(self, task: Task) -> None:
        if self._progress is not None:
            self._progress.update(self._total, description="exports")
            self._rows[task.id] = (self._progress.add_task(f"  {task.id}", total=None), task)

    def show_retried(self, task: Task, failure: Failure) -> None:
        row = self._rows.pop(task.id, None)
        if self._progress is not None and row is not None:
            self._progress.remove_task(row[0])
        self.say(f"{task.id} is tried once more, alone: {failure}", "yellow")

    def refresh(self, pulse: Pulse) -> None:  # noqa: ARG002
        """Show which step each running export is at."""
        for row, task in self._rows.values():
            if self._progress is not None:
                step = ExportDirectory(task.directory).read_current_step()
                self._progress.update(row, description=f"  {task.id}: {step or 'starting'}")

    def show_ended(self, record: ExportRecord) -> None:
        self._num_ended += 1
        row = self._rows.pop(record.id, None)
        if self._progress is not None:
            if row is not None:
                self._progress.remove_task(row[0])
            self._progress.advance(self._total)
        count = f"[{self._num_ended}/{self._num_exports}]"
        self.say(f"{count} {record.outcome.words:<10} {record.id} {_explain(record)}", _STYLES[record.outcome])

    def show_table(self, record: BatchRecord) -> None:
        """All exports of the batch and their numbers."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        numbers = ("opset", "max_abs_diff", "peak MiB", "size KiB", "nodes", "ORT ms", "time s")
        table.add_column("export", overflow="fold")
        table.add_column("outcome")
        for name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        for export in record.exports:
            table.add_row(*_cells(export))
        if self._is_broken:
            return
        try:
            self._console.print()
            self._console.print(table)
            self._console.print()
        except OSError:
            self._is_broken = True


def _explain(record: ExportRecord) -> str:
    if record.failure is not None:
        return str(record.failure)
    if record.outcome is Outcome.up_to_date:
        return ""
    rescued = f"; rescued by {', '.join(record.rescued_by)}" if record.rescued_by else ""
    return f"in {record.duration_s:.1f} s ({record.reason}{rescued})"


def _cells(export: ExportRecord) -> Sequence[str]:
    style = _STYLES[export.outcome]
    return (
        export.id,
        f"[{style}]{export.outcome.words}[/]",
        str(export.opset_version),
        _format(export.max_abs_diff, "{:.1e}"),
        _format(export.export_peak_bytes, "{:.0f}", 2**-20),
        _format(export.size_bytes or None, "{:,.0f}", 2**-10),
        _format(export.num_nodes or None, "{}"),
        _format(export.latency_s, "{:.2f}", 1000),
        _format(export.duration_s, "{:.1f}") if export.outcome is not Outcome.up_to_date else "",
    )


def _format(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor)
