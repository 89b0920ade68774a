"""Contradictions between a fill and the dtype that it is to fill; a part of `exporter.validation`."""

import math
from collections.abc import Iterator
from pathlib import Path

from exporter.spec import DType, Fill, FillKind

__all__ = ["find_fill_problems"]

_COMPLEX = (DType.complex64, DType.complex128)
_FLOATS = (
    DType.float8_e4m3fn,
    DType.float8_e5m2,
    DType.float16,
    DType.bfloat16,
    DType.float32,
    DType.float64,
    *_COMPLEX,
)
_FILL_FILES = (".npy", ".npz", ".safetensors")


def find_fill_problems(place: str, fill: Fill, dtype: DType) -> Iterator[str]:
    """Each problem as a line, as `exporter.validation.find_problems` gives them."""
    if fill.kind is FillKind.normal and dtype not in _FLOATS:
        yield f"{place}.kind: normal does not fit {dtype.value}; use randint, arange, ones, zeros or constant"
    if fill.kind is FillKind.uniform and dtype not in _FLOATS:
        yield f"{place}.kind: uniform does not fit {dtype.value}; use randint"
    if fill.kind is FillKind.file and Path(fill.path or "").suffix not in _FILL_FILES:
        yield f"{place}.path: {fill.path!r} is not a {', '.join(_FILL_FILES)} file"
    if fill.kind is not FillKind.file and (fill.path is not None or fill.key is not None):
        yield f"{place}: path and key are for kind: file"
    nonfinite = [key for key in ("low", "high", "value") if not math.isfinite(getattr(fill, key))]
    if nonfinite:
        yield from (f"{place}.{key}: {getattr(fill, key)} must be a finite number" for key in nonfinite)
        return
    if fill.kind in (FillKind.uniform, FillKind.randint) and fill.low >= fill.high:
        yield f"{place}: low {fill.low:g} must be less than high {fill.high:g}"
    if fill.kind is FillKind.randint and (fill.low % 1 or fill.high % 1):
        yield f"{place}: randint needs whole numbers for low and high"
    yield from _find_range_problems(place, fill, dtype)


def _find_range_problems(place: str, fill: Fill, dtype: DType) -> Iterator[str]:
    """Values that the dtype does not hold; torch would wrap them round, or cut them."""
    low, high = _integer_range(dtype)
    if fill.kind is FillKind.randint and not (low <= fill.low and fill.high - 1 <= high):
        yield f"{place}: low {fill.low:g} and high {fill.high:g} are beyond {dtype.value}, {low} to {high}"
    if fill.kind is FillKind.constant and dtype not in _FLOATS and (fill.value % 1 or not low <= fill.value <= high):
        yield f"{place}.value: {fill.value:g} is none of the whole numbers of {dtype.value}, {low} to {high}"


def _integer_range(dtype: DType) -> tuple[int, int]:
    """The values of an integer dtype; of any other than bool those of int64, in which they are drawn."""
    if dtype is DType.bool:
        return 0, 1
    bits = 64 if dtype in _FLOATS else int(dtype.value.removeprefix("u").removeprefix("int"))
    # Drawn in int64, whatever the dtype.
    return (0, 2 ** min(bits, 63) - 1) if dtype.value.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
