"""The live view: a line for each running export, as many as fit, and a bar for the batch with the time left."""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from pipeline.console import OwnConsole
from pipeline.progress import BatchProgress, RunningExport
from pipeline.quantities import say_bytes, say_clock, say_rest
from registry_sync.record import Outcome

__all__ = ["LiveView", "shorten"]

# Running times show whole seconds.
_FRAMES_PER_S = 2
_STEP_WIDTH, _CLOCK_WIDTH, _MEMORY_WIDTH = 8, 7, 8
_MIN_NAME_WIDTH = 10
_MAX_BAR_WIDTH = 30
_MIN_BAR_WIDTH = 4


class LiveView(Live):
    """Draws itself anew twice a second, in a thread, until it is stopped; then it is gone without a trace.

    Args:
        console: A terminal.
        progress: Of the batch, which goes on meanwhile.
        clock: The one that the progress is told the time by.
    """

    def __init__(
        self, console: OwnConsole, progress: BatchProgress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_broken = False
        super().__init__(
            _Frame(progress, clock, is_ascii=console.is_ascii),
            console=console,
            transient=True,
            refresh_per_second=_FRAMES_PER_S,
            # Others' output is led to a log, and ours goes through the console.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def refresh(self) -> None:
        """Draw, or take note that nobody looks any more."""
        try:
            super().refresh()
        except OSError:
            self.is_broken = True


class _Frame:
    """What the view shows at the moment at which it is rendered, at the width that the terminal has then."""

    def __init__(self, progress: BatchProgress, clock: Callable[[], float], *, is_ascii: bool) -> None:
        self._progress = progress
        self._clock = clock
        self._ellipsis, self._full, self._empty = ("..", "#", "-") if is_ascii else ("…", "━", "─")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now_s = self._clock()
        # In the last column some terminals already wrap.
        width = options.max_width - 1
        # What is above matters too: failures.
        most = max(1, options.size.height // 2)
        running = list(self._progress.running.items())
        yield from self._draw_rows(running[:most], width, now_s)
        if len(running) > most:
            yield _line(f"  and {len(running) - most} more", width, "dim")
        yield self._draw_bar(width, now_s)

    def _draw_rows(self, running: Sequence[tuple[str, RunningExport]], width: int, now_s: float) -> Iterator[Text]:
        if not running and self._progress.waiting:
            yield _line("  starting workers", width, "dim")
        longest = max((cell_len(name) for name, _ in running), default=0)
        # What does not fit beside ten characters of the name is left out: first the memory, then the step.
        room = width - 2 - 1 - _CLOCK_WIDTH
        has_step = room - 2 - _STEP_WIDTH >= _MIN_NAME_WIDTH
        room -= 2 + _STEP_WIDTH if has_step else 0
        has_memory = room - 2 - _MEMORY_WIDTH >= _MIN_NAME_WIDTH
        room -= 2 + _MEMORY_WIDTH if has_memory else 0
        name_width = min(longest, max(1, room))
        for name, one in running:
            shown = shorten(name, name_width, self._ellipsis)
            row = Text("  ", no_wrap=True, overflow="crop").append(shown + " " * (name_width - cell_len(shown)))
            if has_step:
                row.append(f"  {one.step or 'starting':<{_STEP_WIDTH}}", "cyan" if one.step else "dim")
            row.append(f" {say_clock(now_s - one.began_s):>{_CLOCK_WIDTH}}")
            if has_memory and one.rss_bytes is not None:
                row.append(f"  {say_bytes(one.rss_bytes):>{_MEMORY_WIDTH}}", "dim")
            yield row

    def _draw_bar(self, width: int, now_s: float) -> Text:
        progress = self._progress
        num_failed = progress.outcomes[Outcome.failed] + progress.outcomes[Outcome.unproven]
        count = f" {progress.num_ended}/{progress.num_exports}"
        failed = f", {num_failed} failed" if num_failed else ""
        clock = f"  {say_clock(now_s - progress.began_s)}"
        rest = f"  {say_rest(progress.estimate(now_s))}"
        room = min(_MAX_BAR_WIDTH, width - len(count + failed + clock + rest))
        bar = Text(no_wrap=True, overflow="crop")
        if room >= _MIN_BAR_WIDTH:
            num_full = room * progress.num_ended // max(1, progress.num_exports)
            bar.append(self._full * num_full, "green").append(self._empty * (room - num_full), "dim")
        elif len(count + failed + clock + rest) > width:
            clock = ""
        bar.append(count if room >= _MIN_BAR_WIDTH else count.lstrip(), "bold").append(failed, "bold red")
        bar.append(clock).append(rest, "dim")
        bar.truncate(width, overflow="crop")
        return bar


def _line(text: str, width: int, style: str) -> Text:
    return Text(text[:width], style, no_wrap=True, overflow="crop")


def shorten(name: str, width: int, ellipsis: str = "…") -> str:
    """The name in so many columns: its beginning and its end, since ids of a sweep differ at the end."""
    if cell_len(name) <= width:
        return name
    if width <= len(ellipsis) + 1:
        return name[:width]
    num_kept = width - len(ellipsis)
    head = (num_kept + 1) // 2
    return f"{name[:head]}{ellipsis}{name[len(name) - (num_kept - head) :]}"
