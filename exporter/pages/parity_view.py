"""Parity as a page shows it: how near each output came to its limit in each case, and how near rounding alone comes.

All errors are in multiples of the limit of the gate that they come nearest to, so that outputs of any scale, and both
gates, stand in one picture: 1 is the limit.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from exporter.evidence import CaseRecord, OutputParity
from exporter.limits import gates_elements, limit_share
from exporter.pages.formats import say_factor, say_number
from exporter.result import ExportResult
from exporter.spec import Precision

__all__ = ["Comparison", "ParityView", "Tick", "view_parity"]

MAX_MARKS = 24
MAX_ROWS = 200
# Room in the picture, in percent of its width, left of the first tick for what is exactly equal, and right of the last.
_LEFT = 9.0
_RIGHT = 98.0
# Errors further from the limit than this stand at the edge.
_LEAST = -9
_MOST = 6
_MAX_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output in one case."""

    case: CaseRecord
    output: OutputParity
    # ONNX Runtime against PyTorch; None where it is beyond any multiple, or was not taken or recorded.
    share: float | None
    # PyTorch's own rounding error, as far as it is known.
    floor: float | None
    # Places in the picture, in percent of its width; None where there is nothing to show.
    x: float | None = None
    floor_x: float | None = None


@dataclass(frozen=True)
class Tick:
    """A line of the picture's scale."""

    x: float
    label: str


@dataclass(frozen=True, kw_only=True)
class ParityView:
    """All that the section of a page shows."""

    # For the picture.
    marks: list[Comparison]
    num_marks_left_out: int
    ticks: list[Tick]
    limit_x: float
    has_floor: bool
    # For the table, failed ones first where not all have room.
    rows: list[Comparison]
    num_rows_left_out: int
    num_failed_left_out: int
    gates: str
    has_element_gate: bool
    # Of all: what came nearest to its limit.
    worst: Comparison | None
    num_outputs: int
    # Case and reason, where PyTorch's own error could not be measured.
    missing_floors: list[tuple[str, str]]


def view_parity(result: ExportResult) -> ParityView:
    """Choose and place what is shown; the nearest to the limit where there are too many."""
    precision = result.spec.precision
    found = [_compare(case, output, precision) for case in result.cases for output in case.outputs]
    marks = _choose(found, MAX_MARKS)
    low, high = _find_scale(marks)
    rows = _choose(found, MAX_ROWS, _rank_failed)
    reasons = {case.noise_reason: case.name for case in reversed(result.cases) if case.noise_reason}
    return ParityView(
        marks=[_place(mark, low, high) for mark in marks],
        num_marks_left_out=len(found) - len(marks),
        ticks=_make_ticks(low, high),
        limit_x=_scale(1.0, low, high),
        has_floor=any(mark.floor is not None for mark in marks),
        rows=rows,
        num_rows_left_out=len(found) - len(rows),
        num_failed_left_out=_count_failed(found) - _count_failed(rows),
        gates=", ".join(
            f"{key} {say_number(value)}"
            for key in ("rtol", "atol", "max_rel_l2")
            if (value := getattr(precision, key)) is not None
        ),
        has_element_gate=gates_elements(precision),
        worst=max(found, key=_rank, default=None),
        num_outputs=len({one.output.output for one in found}),
        missing_floors=[(name, reason) for reason, name in reasons.items()],
    )


def _compare(case: CaseRecord, output: OutputParity, precision: Precision) -> Comparison:
    noise = output.noise
    floor = None
    if noise is not None:
        limit = precision.max_rel_l2
        norm = noise.torch.rms / noise.scale / limit if limit and noise.scale else None
        floor = max((share for share in (noise.torch.in_tolerances, norm) if share is not None), default=None)
    share = _require_place(limit_share(output, precision))
    return Comparison(case=case, output=output, share=share, floor=_require_place(floor))


def _require_place(share: float | None) -> float | None:
    """A share that has a place in the picture; a file may hold any number."""
    return share if share is not None and math.isfinite(share) and share >= 0 else None


def _rank(one: Comparison) -> tuple[bool, float]:
    """Higher is nearer to the limit, or further over it."""
    return not one.output.passed, math.inf if one.share is None else one.share


def _rank_failed(one: Comparison) -> tuple[bool, float]:
    return not one.output.passed, 0.0


def _choose(
    found: Sequence[Comparison], most: int, rank: Callable[[Comparison], tuple[bool, float]] = _rank
) -> list[Comparison]:
    """Those of the highest rank, in their old order."""
    if len(found) <= most:
        return list(found)
    places = sorted(range(len(found)), key=lambda place: rank(found[place]), reverse=True)[:most]
    return [found[place] for place in sorted(places)]


def _count_failed(found: Iterable[Comparison]) -> int:
    return sum(not one.output.passed for one in found)


def _find_scale(marks: Iterable[Comparison]) -> tuple[int, int]:
    """The powers of ten between which all errors lie; the limit is always among them."""
    errors = [error for mark in marks for error in (mark.share, mark.floor) if error]
    low = math.floor(math.log10(min(errors, default=1.0)))
    high = math.ceil(math.log10(max(errors, default=1.0)))
    return max(_LEAST, min(low, -1)), min(_MOST, max(high, 1))


def _scale(error: float, low: int, high: int) -> float:
    """The place of an error; what is 0 stands left of the scale, what is beyond it at its end."""
    if not error:
        return _LEFT / 2
    share = (math.log10(error) - low) / (high - low)
    return round(_LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT), 2)


def _place(mark: Comparison, low: int, high: int) -> Comparison:
    # What failed without a number stands at the far end.
    beyond = None if mark.output.passed else _RIGHT
    return Comparison(
        case=mark.case,
        output=mark.output,
        share=mark.share,
        floor=mark.floor,
        x=beyond if mark.share is None else _scale(mark.share, low, high),
        floor_x=None if mark.floor is None else _scale(mark.floor, low, high),
    )


def _make_ticks(low: int, high: int) -> list[Tick]:
    every = math.ceil((high - low) / _MAX_TICKS)
    # Counted from the limit, which has to be one of them.
    powers = [power for power in range(low, high + 1) if power % every == 0]
    return [Tick(_scale(10.0**power, low, high), _label(power)) for power in powers]


def _label(power: int) -> str:
    """As a share of the limit: `1 %`, `limit`, `10 x`, `1e-6 %`."""
    if power == 0:
        return "limit"
    return say_factor(10**power) if power > 0 else f"{say_number(10.0 ** (power + 2))} %"
