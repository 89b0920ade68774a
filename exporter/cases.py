"""Which sizes an export is tried at: every dynamic dim at its minimum, its maximum and away from the example.

A dim that is declared dynamic counts as proven only at sizes that parity held for, so the cases are chosen to
catch what a single example hides: a size baked into the graph, a branch on a shape, two dims confused.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from exporter.spec import Dim, ExportSpec, ModelSpec

__all__ = ["Case", "choose_cases", "count_input_elements", "resolve_shape"]


@dataclass(frozen=True)
class Case:
    """One assignment of sizes to the named dims, and a seed."""

    name: str
    sizes: Mapping[str, int]
    seed: int


def resolve_shape(shape: list[int | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The whole numbers that a declared shape stands for under the given sizes."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in shape)


def choose_cases(spec: ExportSpec) -> list[Case]:
    """The example first, then the minimum, sizes in between, each dim at its maximum, and all of them there.

    A maximum is halved towards the example until the inputs of the case have at most
    `parity.max_input_elements` elements together.
    """
    dims = spec.model.dims
    example = {name: dim.example for name, dim in dims.items()}
    chosen = [("example", example)]
    if dims:
        chosen.append(("minimum", {name: dim.min for name, dim in dims.items()}))
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


def _sizes_between(dims: Mapping[str, Dim]) -> dict[str, int]:
    """For each dim a size that is none of min, max and example, and no other dim's, where there is one."""
    sizes: dict[str, int] = {}
    for name, dim in dims.items():
        start = min(dim.example + max(1, dim.example // 2), dim.max)
        # Odd sizes first: an even one hides padding and division that only work out for even numbers.
        upward = chain(range(start | 1, dim.max, 2), range(dim.example + 1, dim.max))
        inside = [*islice(chain(upward, range(dim.example - 1, dim.min, -1)), len(dims))]
        # Every dim has one candidate more than there are other dims, unless its range is smaller than that.
        unshared = (size for size in inside if size not in sizes.values())
        sizes[name] = next(unshared, inside[0] if inside else dim.example)
    return sizes


def _largest_affordable(spec: ExportSpec, names: list[str], example: Mapping[str, int]) -> dict[str, int]:
    """The example with the named dims at their maximum, or as near to it as the limit allows."""
    dims = spec.model.dims
    sizes = {**example, **{name: dims[name].max for name in names}}
    while count_input_elements(spec.model, sizes) > spec.parity.max_input_elements and sizes != example:
        sizes.update({name: max(dims[name].example, sizes[name] // 2) for name in names})
    return sizes


def count_input_elements(model: ModelSpec, sizes: Mapping[str, int]) -> int:
    """Elements of all inputs together under the given sizes."""
    return sum(math.prod(resolve_shape(spec.shape, sizes)) for spec in model.inputs.values())
