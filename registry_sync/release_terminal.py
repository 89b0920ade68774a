"""A release's page, or a table, as a person at a terminal reads it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from registry_sync.release_page import Page, Table

__all__ = ["show_page", "show_table"]

_STYLES = {"good": "green", "bad": "red", "": ""}


def show_page(page: Page, leave_out: Sequence[str] = ()) -> str:
    """Everything that the page says, but for tables with these titles."""
    console = Console()
    with console.capture() as capture:
        console.print(Text(page.title, style="bold"))
        console.print(Text(page.verdict, style=_STYLES["good" if page.passed else "bad"]))
        for name, value in page.facts:
            console.print(Text(f"{name}: {value}"))
        for table in page.tables:
            if table.title not in leave_out:
                _print_table(console, table)
    return capture.get().rstrip("\n")


def show_table(table: Table) -> str:
    """With its title."""
    console = Console()
    with console.capture() as capture:
        _print_table(console, table)
    return capture.get().strip("\n")


def _print_table(console: Console, table: Table) -> None:
    # Text, so that brackets in a cause are no markup.
    rich = RichTable(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name in table.header:
        rich.add_column(Text(name), overflow="fold")
    for row in table.rows:
        cells = [Text(cell) for cell in row.cells]
        if len(cells) > 1:
            cells[1].stylize(_STYLES[row.mark])
        rich.add_row(*cells)
    console.print()
    console.print(Text(table.title, style="bold"))
    console.print(rich)
    if table.note:
        console.print(Text(table.note, style="dim"))
