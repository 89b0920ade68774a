"""What a command would export, and why, and what it would leave alone; nothing is run, locked or written.

For `explain=true`. It holds no lock, so a batch may run beside it: what it says is true of the moment when it looked.
"""

import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.table import Table
from rich.text import Text

from exporter.errors import ExitCode
from pipeline.console import OwnConsole
from pipeline.expectation import Expectation, expect, find_recent_runs
from pipeline.plan import Job, PlannedExport, Planner
from pipeline.streams import duplicate

__all__ = ["explain_jobs"]

_DUE, _UP_TO_DATE = "to export", "up to date"


def explain_jobs(jobs: Iterable[Job]) -> ExitCode:
    """Print for each job whether there is work for it, and what it took the last time.

    Args:
        jobs: At least one; taken one by one, as a batch takes them.

    Raises:
        ModelpressError: Nothing would be started: the jobs contradict each other, or an export's place is taken.
    """
    jobs = iter(jobs)
    first = next(jobs)
    planner = Planner(first.config)
    for job in chain([first], jobs):
        planner.add(job)
    planned = planner.finish()
    output = first.config.output
    recent = find_recent_runs(Path(output.runs))
    lines = [_Line(plan, expect(plan.spec, Path(output.exports), recent)) for plan in planned]
    stream = duplicate(sys.stdout)
    # Who reads us may go away.
    with suppress(OSError), nullcontext() if stream is sys.stdout else stream:
        console = OwnConsole(stream)
        if console.is_terminal:
            console.print(_make_table(lines))
            console.print(Text(_summarize(lines)))
        else:
            stream.write("".join(f"{line}\n" for line in [*map(str, lines), _summarize(lines)]))
            stream.flush()
    return ExitCode.OK


@dataclass(frozen=True)
class _Line:
    plan: PlannedExport
    expectation: Expectation

    def __str__(self) -> str:
        plan = self.plan
        if not plan.reason:
            return f"{_UP_TO_DATE}  {plan.spec.id}"
        known = f" (expected: {self.duration} s, {self.memory} MiB)" if self.duration else ""
        return f"{_DUE:<10}  {plan.spec.id}: {plan.reason}{known}"

    @property
    def duration(self) -> str:
        """Empty where there is no earlier result."""
        seconds = self.expectation.duration_s
        return "" if seconds is None else f"{seconds:.1f}"

    @property
    def memory(self) -> str:
        """What admission counts with; empty where it is a guess."""
        return f"{self.expectation.memory_bytes / 2**20:.0f}" if self.duration else ""


def _make_table(lines: Sequence[_Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("export", overflow="fold")
    table.add_column("")
    table.add_column("why", overflow="fold")
    for name in ("expected s", "expected MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        what = Text(_DUE, "yellow") if line.plan.reason else Text(_UP_TO_DATE, "cyan")
        table.add_row(Text(line.plan.spec.id), what, Text(line.plan.reason), line.duration, line.memory)
    return table


def _summarize(lines: Sequence[_Line]) -> str:
    due = [line for line in lines if line.plan.reason]
    known = [seconds for line in due if (seconds := line.expectation.duration_s) is not None]
    text = f"{len(due)} of {len(lines)} to export, {len(lines) - len(due)} up to date"
    if not known:
        return text
    unknown = f", and {len(due) - len(known)} never exported before" if len(known) < len(due) else ""
    return f"{text}; expected: {sum(known):.1f} s of work{unknown}"
