"""What torch took for granted about sizes when it captured a model, and sizes at which that does not hold.

A `forward` that branches on a shape is captured along one branch. torch writes down the condition as a runtime
assertion, which is lost on the way to ONNX. It does so for harmless conditions too, such as "more than one", so a
condition is no verdict: a case is made in which it does not hold, and parity judges.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from exporter.cases import Case, all_sizes, count_input_elements, describe_sizes, has_sizes
from exporter.errors import FailureKind, StepError
from exporter.spec import Dim, ExportSpec
from exporter.symbols import declared_axes, expression_of, map_symbols

__all__ = ["BREAKS", "Assumption", "add_cases", "read_assumptions"]

# Begins the name of a case that was made to break an assumption.
BREAKS = "breaks "

# Sizes tried of each dim in search of one that breaks a condition, by how many dims the condition is about.
_MAX_CANDIDATES = {1: 4096, 2: 64, 3: 16}

# torch's own functions in these conditions (torch.utils._sympy.functions), as Python computes them.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -(-a // b),
    "Max": max,
    "Min": min,
}


@dataclass(frozen=True)
class Assumption:
    """A condition on dims that the captured graph takes for granted."""

    text: str
    dims: tuple[str, ...]
    holds: Callable[..., bool]

    def holds_for(self, sizes: Mapping[str, int]) -> bool:
        return bool(self.holds(*(sizes[name] for name in self.dims)))


def read_assumptions(
    exported: torch.export.ExportedProgram, spec: ExportSpec, placeholders: Mapping[str, str]
) -> list[Assumption]:
    """The runtime assertions of a program as torch.export made it, and the ranges of sizes computed from dims.

    Conditions on anything but the declared dims are left out: they come from values, not from shapes.

    Args:
        exported: Not decomposed.
        spec: Gives the dims.
        placeholders: From `find_placeholders`.
    """
    symbols = map_symbols(exported, spec, placeholders)
    found: dict[str, Assumption] = {}
    for node in exported.graph.nodes:
        if node.op != "call_function" or "_assert_scalar" not in str(node.target):
            continue
        value = getattr(node.args[0], "meta", {}).get("val")
        expression = getattr(getattr(value, "node", None), "expr", None)
        if expression is None or not expression.free_symbols or not expression.free_symbols <= set(symbols):
            continue
        assumption = _make_assumption(expression, symbols)
        found.setdefault(assumption.text, assumption)
    for condition in _read_computed_ranges(exported, spec, placeholders, symbols):
        assumption = _make_assumption(condition, symbols)
        found.setdefault(assumption.text, assumption)
    return list(found.values())


def _read_computed_ranges(
    exported: torch.export.ExportedProgram,
    spec: ExportSpec,
    placeholders: Mapping[str, str],
    symbols: Mapping[sympy.Symbol, sympy.Expr],
) -> Iterator[sympy.Basic]:
    """The bounds of sizes that are computed from dims, which are no dim's own range."""
    for _, _, declared, size in declared_axes(exported, spec, placeholders):
        symbol = expression_of(size)
        bounds = exported.range_constraints.get(symbol)
        if bounds is None or declared in spec.model.dims:
            continue
        limits = [sympy.Ge(symbol, bounds.lower)]
        if bounds.upper.is_Integer:
            limits.append(sympy.Le(symbol, bounds.upper))
        yield from (limit for limit in limits if limit.xreplace(dict(symbols)).free_symbols)


def add_cases(spec: ExportSpec, cases: Sequence[Case], assumptions: Sequence[Assumption]) -> list[Case]:
    """The cases, and for each assumption that holds in all of them one in which it does not, where there is one.

    Raises:
        StepError: The only sizes at which an assumption does not hold are too large to try.
    """
    extended = list(cases)
    for assumption in assumptions:
        if not all(assumption.holds_for(case.sizes) for case in extended):
            continue
        broken = list(_find_broken(assumption, spec, cases[0].sizes))
        if not broken:
            continue
        sizes = min(broken, key=lambda sizes: count_input_elements(spec.model, sizes))
        if count_input_elements(spec.model, sizes) > spec.parity.max_input_elements:
            raise StepError(
                FailureKind.dim_narrowed,
                f"the captured graph takes for granted that {assumption.text}, which does not hold at "
                f"{describe_sizes(sizes)}; such inputs have more than "
                f"parity.max_input_elements={spec.parity.max_input_elements} elements",
            )
        extended.append(Case(f"{BREAKS}{assumption.text}", sizes, spec.model.seed + len(extended)))
    return extended


def _make_assumption(expression: sympy.Basic, symbols: Mapping[sympy.Symbol, sympy.Expr]) -> Assumption:
    named = expression.xreplace(dict(symbols))
    arguments = sorted(named.free_symbols, key=str)
    dims = tuple(str(argument) for argument in arguments)
    return Assumption(str(named), dims, sympy.lambdify(arguments, named, modules=[_FUNCTIONS, "math"]))


def _find_broken(assumption: Assumption, spec: ExportSpec, example: Mapping[str, int]) -> Iterator[dict[str, int]]:
    num_candidates = _MAX_CANDIDATES.get(len(assumption.dims), 4)
    candidates = [_choose_candidates(spec.model.dims[name], num_candidates) for name in assumption.dims]
    for combination in itertools.product(*candidates):
        sizes = {**example, **dict(zip(assumption.dims, combination, strict=True))}
        if has_sizes(spec.model, sizes) and not assumption.holds_for(sizes):
            yield sizes


def _choose_candidates(dim: Dim, number: int) -> list[int]:
    """All sizes of a dim, or as many, densest at the lower end, with the maximum among them."""
    sizes = all_sizes(dim)
    last = len(sizes) - 1
    if last < number:
        return list(sizes)
    dense = sizes[: number // 2]
    spread = (round(math.exp(math.log(last) * i / (number // 2))) for i in range(1, number // 2 + 1))
    return sorted({*dense, dim.example, *(sizes[min(position, last)] for position in spread), dim.max})
