"""A release's page, or a table, as a person at a terminal reads it."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from registry_sync.release_page import Page, Table

__all__ = ["show_page", "show_table"]

# Cells up to this long stay in one piece.
_SHORT = 20
# Of lines that go to no terminal, at least; a note is broken there.
_MIN_WIDTH = 120
# Between columns.
_GAP = 2
_STYLES = {"good": "green", "bad": "red", "": ""}


def show_page(page: Page, leave_out: Sequence[str] = ()) -> str:
    """Everything that the page says, but for tables with these titles."""
    console = Console()
    with console.capture() as capture:
        console.print(Text(page.title, style="bold"))
        console.print(Text(page.verdict, style=_STYLES["good" if page.passed else "bad"]))
        for name, value in page.facts:
            console.print(Text(f"{name}: {value}"))
    tables = [show_table(table) for table in page.tables if table.title not in leave_out]
    return "\n\n".join([capture.get().rstrip("\n"), *tables])


def show_table(table: Table) -> str:
    """With its title."""
    lines = [table.header, *(row.cells for row in table.rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    console = Console(width=_choose_width(widths))
    # A number in pieces is none; and what a row is of is copied into the next command.
    whole = [number == 0 or width <= _SHORT for number, width in enumerate(widths)]
    rich = RichTable(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name, no_wrap in zip(table.header, whole, strict=True):
        rich.add_column(Text(name), overflow="fold", no_wrap=no_wrap)
    for row in table.rows:
        # Text, so that brackets in a cause are no markup.
        cells = [Text(cell) for cell in row.cells]
        if len(cells) > 1:
            cells[1].stylize(_STYLES[row.mark])
        rich.add_row(*cells)
    with console.capture() as capture:
        console.print(Text(table.title, style="bold"))
        console.print(rich)
        if table.note:
            console.print(Text(table.note, style="dim"))
    return capture.get().strip("\n")


def _choose_width(widths: Sequence[int]) -> int:
    """The terminal's, or as much more as short cells need: it breaks such lines better than we would cells."""
    console = Console()
    gaps = _GAP * len(widths)
    if not console.is_terminal:
        return max(_MIN_WIDTH, sum(widths) + gaps)
    return max(console.width, widths[0] + sum(min(width, _SHORT) for width in widths[1:]) + gaps)
