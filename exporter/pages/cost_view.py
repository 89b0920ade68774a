"""Steps, operators and passes as a page shows them: bars in percent of the widest, and how much has no room."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.result import ExportResult, PassRecord, StepRecord

__all__ = ["OpBar", "PassRow", "StepBar", "view_ops", "view_passes", "view_steps"]

_MAX_OPS = 20
_MAX_CHANGES = 12


@dataclass(frozen=True, kw_only=True)
class StepBar:
    """One step: memory of the whole process above what it had before the first step."""

    record: StepRecord
    name: str
    start_bytes: int | None
    peak_bytes: int | None
    # In percent of the highest peak.
    start: float = 0.0
    peak: float = 0.0


@dataclass(frozen=True)
class OpBar:
    """How often an operator stands in the graph; `width` is in percent of the most frequent one's."""

    op: str
    count: int
    width: float


@dataclass(frozen=True)
class PassRow:
    """A pass, and what it changed most."""

    record: PassRecord
    changes: list[tuple[str, int]]
    num_left_out: int


def view_steps(result: ExportResult) -> list[StepBar]:
    """One bar a step, in the order in which they ran."""
    base = result.baseline_rss_bytes
    peaks = [_above(record.peak_rss_bytes, base) for record in result.steps]
    highest = max((peak for peak in peaks if peak is not None), default=0)
    bars = []
    for record, peak in zip(result.steps, peaks, strict=True):
        start = _above(record.start_rss_bytes, base)
        bars.append(
            StepBar(
                record=record,
                name=record.step.value if record.attempt == 1 else f"{record.step.value}, attempt {record.attempt}",
                start_bytes=start,
                peak_bytes=peak,
                start=_percent(min(start or 0, peak or 0), highest),
                peak=_percent(peak or 0, highest),
            )
        )
    return bars


def view_ops(op_counts: Mapping[str, int]) -> tuple[list[OpBar], int, int]:
    """The most frequent operators; how many kinds are left out, and how many nodes those are."""
    counts = sorted(op_counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = counts[:_MAX_OPS], counts[_MAX_OPS:]
    most = max((count for _, count in shown), default=0)
    bars = [OpBar(op, count, _percent(count, most)) for op, count in shown]
    return bars, len(rest), sum(count for _, count in rest)


def view_passes(result: ExportResult) -> list[PassRow]:
    """One row a pass, with the operators that it added or removed most of."""
    rows = []
    for record in result.passes:
        changes = sorted(record.op_changes.items(), key=lambda item: (-abs(item[1]), item[0]))
        rows.append(PassRow(record, changes[:_MAX_CHANGES], max(0, len(changes) - _MAX_CHANGES)))
    return rows


def _above(value: int | None, base: int) -> int | None:
    return None if value is None else max(0, value - base)


def _percent(value: float, highest: float) -> float:
    return round(100 * value / highest, 2) if highest else 0.0
