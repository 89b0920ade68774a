"""Which sizes an export is tried at: every dynamic dim at its minimum, its maximum and away from the example.

A dim that is declared dynamic counts as proven only at sizes that parity held for, so the cases are chosen to
catch what a single example hides: a size baked into the graph, a branch on a shape, two dims confused.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from exporter.axes import AxisError, evaluate_axis
from exporter.spec import Dim, ExportSpec, ModelSpec

__all__ = [
    "Case",
    "all_sizes",
    "choose_cases",
    "count_input_elements",
    "describe_sizes",
    "has_sizes",
    "resolve_shape",
]

# Sizes looked at on either side of the example, in search of one for the case in between.
_MAX_CANDIDATES = 64


@dataclass(frozen=True)
class Case:
    """One assignment of sizes to the named dims, and a seed."""

    name: str
    sizes: Mapping[str, int]
    seed: int


def describe_sizes(sizes: Mapping[str, int]) -> str:
    """As in `batch=2, seq=16`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def all_sizes(dim: Dim) -> range:
    """Every size that a dim declares."""
    return range(dim.min, dim.max + 1, dim.multiple_of)


def resolve_shape(shape: list[int | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The whole numbers that a declared shape stands for under the given sizes."""
    return tuple(evaluate_axis(axis, sizes) for axis in shape)


def has_sizes(model: ModelSpec, sizes: Mapping[str, int]) -> bool:
    """Whether the arithmetic in the inputs' shapes gives sizes here: `past - seq` may be less than 0."""
    try:
        return all(size >= 0 for item in model.inputs.values() for size in resolve_shape(item.shape, sizes))
    except AxisError:
        return False


def choose_cases(spec: ExportSpec) -> list[Case]:
    """Every dim at its example, its minimum, 1, 2, the example's next, a prime and its maximum.

    The example comes first. In most cases all dims are off their example at once; the maximum is tried dim by dim
    too. A maximum is halved towards the example until the inputs of the case have at most
    `parity.max_input_elements` elements together; a dim that does not go as low as 1 or 2 stays at its minimum.
    """
    dims = spec.model.dims
    example = {name: dim.example for name, dim in dims.items()}
    chosen = [("example", example)]
    if dims:
        chosen.append(("minimum", {name: dim.min for name, dim in dims.items()}))
        chosen.append(("ones", {name: _at_least(dim, 1) for name, dim in dims.items()}))
        chosen.append(("twos", {name: _at_least(dim, 2) for name, dim in dims.items()}))
        chosen.append(("next", {name: _at_least(dim, dim.example + 1) for name, dim in dims.items()}))
        chosen.append(("between", _sizes_between(dims)))
    chosen.extend((f"max_{name}", _largest_affordable(spec, [name], example)) for name in dims)
    if len(dims) > 1:
        chosen.append(("maximum", _largest_affordable(spec, list(dims), example)))
    return [Case(name, sizes, spec.model.seed + i) for i, (name, sizes) in enumerate(_unique(chosen))]


def _unique(chosen: list[tuple[str, dict[str, int]]]) -> Iterator[tuple[str, dict[str, int]]]:
    seen: list[dict[str, int]] = []
    for name, sizes in chosen:
        if sizes not in seen:
            seen.append(sizes)
            yield name, sizes


def _at_least(dim: Dim, size: int) -> int:
    """The smallest size of the dim that is not less than `size`; its maximum where there is none."""
    return next(_upward(dim, size), dim.max)


def _sizes_between(dims: Mapping[str, Dim]) -> dict[str, int]:
    """For each dim a size that is none of min, max and example, and no other dim's, where there is one.

    A prime where there is one: it hides neither padding nor a division that works out for other sizes only.
    """
    sizes: dict[str, int] = {}
    for name, dim in dims.items():
        above = list(islice(_upward(dim, dim.example + max(1, dim.example // 2)), _MAX_CANDIDATES))
        near = islice(_upward(dim, dim.example + 1), _MAX_CANDIDATES)
        below = islice(_downward(dim, dim.example - 1), _MAX_CANDIDATES)
        candidates = chain(filter(_is_prime, above), filter(_is_odd, above), above, near, below)
        inside = [size for size in candidates if dim.min < size < dim.max]
        # Every dim has one candidate more than there are other dims, unless its range is smaller than that.
        unshared = (size for size in inside if size not in sizes.values())
        sizes[name] = next(unshared, inside[0] if inside else dim.example)
    return sizes


def _upward(dim: Dim, size: int) -> Iterator[int]:
    sizes = all_sizes(dim)
    return iter(sizes[bisect_left(sizes, size) :])


def _downward(dim: Dim, size: int) -> Iterator[int]:
    sizes = all_sizes(dim)
    return reversed(sizes[: bisect_right(sizes, size)])


def _is_prime(size: int) -> bool:
    return size > 1 and all(size % divisor for divisor in range(2, math.isqrt(size) + 1))


def _is_odd(size: int) -> bool:
    return size % 2 == 1


def _largest_affordable(spec: ExportSpec, names: list[str], example: Mapping[str, int]) -> dict[str, int]:
    """The example with the named dims at their maximum, or as near to it as the limit allows."""
    dims = spec.model.dims
    sizes = {**example, **{name: dims[name].max for name in names}}
    while count_input_elements(spec.model, sizes) > spec.parity.max_input_elements and sizes != example:
        sizes.update({name: max(dims[name].example, _halve(dims[name], sizes[name])) for name in names})
    return sizes


def _halve(dim: Dim, size: int) -> int:
    half = size // 2
    return half - half % dim.multiple_of


def count_input_elements(model: ModelSpec, sizes: Mapping[str, int]) -> int:
    """Elements of all inputs together under the given sizes."""
    return sum(math.prod(resolve_shape(spec.shape, sizes)) for spec in model.inputs.values())
