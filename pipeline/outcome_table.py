"""The table at the end of a batch: its exports and their numbers, as many columns as fit beside the names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from registry_sync.record import ExportRecord, Outcome

__all__ = ["STYLES", "choose_rows", "make_table"]

STYLES = {
    Outcome.passed: "green",
    Outcome.up_to_date: "cyan",
    Outcome.failed: "bold red",
    Outcome.unproven: "bold yellow",
    Outcome.cancelled: "yellow",
}
# Of a batch with more exports than this, only those that need somebody's attention are shown.
_MAX_ROWS = 200
_QUIET = (Outcome.passed, Outcome.up_to_date)
# A name is folded below this, so that numbers have a place.
_NAME_WIDTH = 20
_GAP = 2


@dataclass(frozen=True)
class _Number:
    """A column; those with a low rank are the last to go where the terminal is narrow."""

    name: str
    rank: int
    read: Callable[[ExportRecord], str]


_NUMBERS = (
    _Number("opset", 5, lambda export: str(export.opset_version)),
    _Number("max_abs_diff", 2, lambda export: _format(export.max_abs_diff, "{:.1e}")),
    _Number("peak MiB", 1, lambda export: _format(export.export_peak_bytes, "{:.0f}", 2**-20)),
    _Number("size KiB", 4, lambda export: _format(export.size_bytes or None, "{:,.0f}", 2**-10)),
    _Number("nodes", 6, lambda export: _format(export.num_nodes or None, "{}")),
    _Number("ORT ms", 3, lambda export: _format(export.latency_s, "{:.2f}", 1000)),
    _Number(
        "time s",
        0,
        lambda export: _format(export.duration_s, "{:.1f}") if export.outcome is not Outcome.up_to_date else "",
    ),
)


def choose_rows(exports: Sequence[ExportRecord]) -> Sequence[ExportRecord]:
    """All exports; of a large batch, those that did not pass."""
    if len(exports) <= _MAX_ROWS:
        return exports
    return [export for export in exports if export.outcome not in _QUIET][:_MAX_ROWS]


def make_table(exports: Sequence[ExportRecord], width: int) -> Table:
    """A row for each export.

    Args:
        exports: At least one.
        width: In columns of the terminal.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("export", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    numbers = _choose_numbers(exports, width)
    for number in numbers:
        table.add_column(number.name, justify="right", no_wrap=True)
    for export in exports:
        style = STYLES[export.outcome]
        table.add_row(export.id, f"[{style}]{export.outcome.words}[/]", *(number.read(export) for number in numbers))
    return table


def _choose_numbers(exports: Sequence[ExportRecord], width: int) -> list[_Number]:
    name_width = min(_NAME_WIDTH, max(len(export.id) for export in exports))
    room = width - name_width - _GAP - max(len("outcome"), *(len(export.outcome.words) for export in exports))
    chosen: list[_Number] = []
    for number in sorted(_NUMBERS, key=lambda number: number.rank):
        room -= _GAP + max(len(number.name), *(len(number.read(export)) for export in exports))
        if room < 0:
            break
        chosen.append(number)
    return [number for number in _NUMBERS if number in chosen]


def _format(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor)
