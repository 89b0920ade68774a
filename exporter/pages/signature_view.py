"""What a graph takes and gives, and the sizes at which its dims were proven, as a page shows them."""

import math
from dataclasses import dataclass

from exporter.evidence import DimRecord
from exporter.pages.formats import say_count
from exporter.result import ExportResult

__all__ = ["DimRow", "TensorRow", "view_dims", "view_signature"]

_MAX_VALUE = 80
# Sizes further apart than by this factor are shown on a logarithmic scale.
_WIDE = 12
_MARGIN = 3.0
_MAX_MARKS = 50
_MAX_SIZES = 20


@dataclass(frozen=True)
class TensorRow:
    """An input or output, or an argument whose value was baked into the graph."""

    role: str
    name: str
    dtype: str
    shape: str


@dataclass(frozen=True)
class DimRow:
    """A declared dim, and the places of its proven sizes between its minimum and maximum, in percent."""

    record: DimRecord
    marks: list[float]
    # As text; of many the first ones, the last, and how many there are.
    sizes: str
    # The largest was not tried, or did not hold.
    lacks_max: bool


def view_signature(result: ExportResult) -> list[TensorRow]:
    """Inputs, constants and outputs, in this order."""
    rows = [TensorRow("input", one.name, one.dtype, _shape(one.shape)) for one in result.inputs]
    rows += [
        TensorRow("baked in", path, type(value).__name__, repr(value)[:_MAX_VALUE])
        for path, value in result.spec.model.constants.items()
    ]
    return rows + [TensorRow("output", one.name, one.dtype, _shape(one.shape)) for one in result.outputs]


def view_dims(result: ExportResult) -> list[DimRow]:
    """One row a dim."""
    return [
        DimRow(
            dim,
            [_place(size, dim) for size in _thin(dim.proven_sizes)],
            _list_sizes(dim.proven_sizes),
            dim.max not in dim.proven_sizes,
        )
        for dim in result.dims
    ]


def _shape(axes: list[int | str]) -> str:
    return f"[{', '.join(map(str, axes))}]"


def _thin(sizes: list[int]) -> list[int]:
    """As many as can be told apart, evenly over all; the first and the last are among them."""
    if len(sizes) <= _MAX_MARKS:
        return sizes
    return [sizes[round(place * (len(sizes) - 1) / (_MAX_MARKS - 1))] for place in range(_MAX_MARKS)]


def _list_sizes(sizes: list[int]) -> str:
    if len(sizes) <= _MAX_SIZES:
        return ", ".join(map(str, sizes)) or "none"
    first = ", ".join(map(str, sizes[: _MAX_SIZES // 2]))
    return f"{first}, …, {sizes[-1]} ({say_count(len(sizes))} sizes)"


def _place(size: int, dim: DimRecord) -> float:
    low, high, value = float(dim.min), float(dim.max), float(size)
    if high <= low:
        return 50.0
    if high > _WIDE * max(1.0, low):
        low, high, value = (math.log1p(max(0.0, number)) for number in (low, high, value))
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return round(_MARGIN + share * (100 - 2 * _MARGIN), 2)
