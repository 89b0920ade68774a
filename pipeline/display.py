"""What a person sees: a live view on a terminal, lines with the time elsewhere, and a table at the end."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.text import Text

from exporter.result import Failure
from pipeline.console import OwnConsole
from pipeline.live_view import LiveView
from pipeline.outcome_table import STYLES, choose_rows, make_table
from pipeline.progress import BatchProgress
from pipeline.quantities import say_bytes, say_clock, say_duration, say_rest
from pipeline.streams import escape
from registry_sync.record import BatchRecord, ExportRecord, Outcome

__all__ = ["Display"]

# Continuous integration ends a job that is silent for ten minutes.
_HEARTBEAT_S = 300.0
_MAX_NAMED = 5


class Display:
    """On a terminal, a live view below lines of what has happened; elsewhere lines alone, with the time.

    Those say what starts, what ends, and after five minutes without either what is still at work.

    Args:
        progress: Of the batch; whoever tells the display of an event has told the progress before.
        output: A terminal, or not.
        errors: For what has to be told whatever becomes of the output.
        clock: The one that the progress is told the time by.
    """

    def __init__(
        self,
        progress: BatchProgress,
        output: TextIO,
        errors: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = OwnConsole(output)
        self._errors = errors
        self._progress = progress
        self._clock = clock
        self._is_broken = False
        self._view: LiveView | None = None
        self._last_words_s = clock()

    def begin(self) -> None:
        """Say what will be done, or open the live view."""
        progress = self._progress
        num_due = len(progress.waiting)
        if not self._console.is_live:
            todo = f"{num_due} to do, {progress.workers} at a time" if num_due else "all up to date"
            self._tell(f"{_count(progress.num_exports)}: {todo}")
        elif num_due:
            self._view = LiveView(self._console, progress, self._clock)
            with suppress(OSError):
                self._view.start(refresh=True)

    def close(self) -> None:
        """Take the live view away."""
        view, self._view = self._view, None
        if view is not None:
            try:
                view.stop()
            except OSError:
                self._break()

    def say(self, text: str, style: str = "") -> None:
        """Words of a line or more. Who reads us may go away: the exports matter more than the words about them."""
        for line in text.split("\n"):
            self._print(Text(escape(line), style), soft_wrap=True)

    def complain(self, text: str) -> None:
        """One line on standard error."""
        with suppress(OSError, ValueError):
            self._errors.write(f"{escape(text)}\n")
            self._errors.flush()

    def show_started(self, name: str) -> None:
        if self._view is None:
            self._tell(f"{'':<{self._count_width()}} {'started':<10} {name}")

    def show_notice(self, text: str) -> None:
        self._tell(text, "yellow")

    def show_retried(self, name: str, failure: Failure) -> None:
        line = f"{'':<{self._count_width()}} {'again':<10} {name} once more, alone, after {failure}"
        self._tell(line, "yellow")

    def refresh(self) -> None:
        """To be called several times a second; says what is at work where nothing was said for long."""
        if self._view is not None or self._clock() - self._last_words_s < _HEARTBEAT_S:
            return
        progress = self._progress
        now_s = self._clock()
        running = list(progress.running.items())
        named = [
            f"{name} ({one.step or 'starting'}, {say_clock(now_s - one.began_s)}"
            + (f", {say_bytes(one.rss_bytes)})" if one.rss_bytes is not None else ")")
            for name, one in running[:_MAX_NAMED]
        ]
        if len(running) > _MAX_NAMED:
            named.append(f"and {len(running) - _MAX_NAMED} more")
        at_work = ", ".join(named) or "nothing yet"
        rest = say_rest(progress.estimate(now_s))
        self._tell(f"{self._count()} {'at work':<10} {at_work}; {len(progress.waiting)} waiting; {rest}")

    def show_ended(self, record: ExportRecord) -> None:
        if self._console.is_live and record.outcome is Outcome.up_to_date:
            # The table has them; there may be many.
            return
        line = f"{self._count()} {record.outcome.words:<10} {record.id} {_explain(record)}"
        self._tell(line.rstrip(), STYLES[record.outcome])

    def show_table(self, record: BatchRecord) -> None:
        """The exports of the batch and their numbers, and how many of them passed."""
        rows = choose_rows(record.exports)
        self._print(Text())
        if rows:
            self._print(make_table(rows, self._console.width))
            self._print(Text())
        counts = {outcome: record.count(outcome) for outcome in Outcome}
        told = ", ".join(f"{number} {outcome.words}" for outcome, number in counts.items() if number)
        self.say(f"{_count(len(record.exports))} in {say_duration(record.duration_s)}: {told}")

    def _count_width(self) -> int:
        return 3 + 2 * len(str(self._progress.num_exports))

    def _count(self) -> str:
        total = str(self._progress.num_exports)
        return f"[{self._progress.num_ended:>{len(total)}}/{total}]"

    def _tell(self, line: str, style: str = "") -> None:
        """A line about an event: with the time, unless somebody sees it happen."""
        self._last_words_s = self._clock()
        if self._console.is_live:
            # Broken between words; what is to be copied, a path or a command, comes from `say` and `complain`.
            self._print(Text(escape(line), style))
        else:
            self._print(Text(escape(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"), style), soft_wrap=True)

    def _print(self, what: object, *, soft_wrap: bool = False) -> None:
        if self._is_broken:
            return
        try:
            self._console.print(what, soft_wrap=soft_wrap)
        except OSError:
            self._break()

    def _break(self) -> None:
        self._is_broken = True
        self._console.silence()


def _count(number: int) -> str:
    return f"{number} export{'' if number == 1 else 's'}"


def _explain(record: ExportRecord) -> str:
    if record.failure is not None:
        return str(record.failure)
    if record.outcome in (Outcome.up_to_date, Outcome.cancelled):
        return ""
    rescued = f"; rescued by {', '.join(record.rescued_by)}" if record.rescued_by else ""
    return f"in {record.duration_s:.1f} s ({record.reason}{rescued})"
