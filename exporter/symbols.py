"""The sizes of a captured program in the spec's own words: torch's symbols and the declared dims.

torch calls a dynamic size `s77`; two inputs that share a dim may have one symbol or two, and a size that `forward`
ties to another comes out as an expression of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from exporter.arguments import Call
from exporter.axes import evaluate_axis, names_in_axis
from exporter.spec import ExportSpec

__all__ = ["declared_axes", "expression_of", "find_placeholders", "map_symbols", "parse_axis", "rename_size"]


def find_placeholders(exported: torch.export.ExportedProgram, names: Call) -> dict[str, str]:
    """For each input, in the order in which the program takes them, the name of its placeholder.

    Args:
        exported: As torch.export made it, or decomposed.
        names: The call that was captured, with an input's name in place of its tensor, and None for a constant.
    """
    values = exported.graph_signature.user_inputs
    in_spec = exported.call_spec.in_spec
    assert in_spec is not None
    taken = pytree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    positions = {pytree.keystr(path): index for path, index in pytree.tree_flatten_with_path(taken)[0]}
    given = pytree.tree_flatten_with_path((names.args, names.kwargs))[0]
    found = {positions[pytree.keystr(path)]: name for path, name in given if name is not None}
    return {found[position]: str(values[position]) for position in sorted(found)}


def declared_axes(
    exported: torch.export.ExportedProgram, spec: ExportSpec, placeholders: Mapping[str, str]
) -> Iterator[tuple[str, int, str, int | torch.SymInt]]:
    """Each axis that is declared as other than a number: input, axis, what is declared, the size torch gave it."""
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for name, placeholder in placeholders.items():
        sizes = nodes[placeholder].meta["val"].shape
        for axis, (declared, size) in enumerate(zip(spec.model.inputs[name].shape, sizes, strict=True)):
            if isinstance(declared, str):
                yield name, axis, declared, size


def map_symbols(
    exported: torch.export.ExportedProgram, spec: ExportSpec, placeholders: Mapping[str, str]
) -> dict[sympy.Symbol, sympy.Expr]:
    """What each of torch's symbols is in the declared dims: a dim, or arithmetic on dims."""
    symbols: dict[sympy.Symbol, sympy.Expr] = {}
    for _, _, declared, size in declared_axes(exported, spec, placeholders):
        expression = expression_of(size)
        if not isinstance(expression, sympy.Symbol):
            continue
        # A dim by itself says more than what is computed from one.
        if expression not in symbols or (declared in spec.model.dims and not symbols[expression].is_Symbol):
            symbols[expression] = parse_axis(declared)
    return symbols


def parse_axis(axis: str) -> sympy.Expr:
    """An axis of a shape as an expression of integer symbols.

    Raises:
        AxisError: It is no arithmetic on dims.
    """
    names: dict[str, Any] = {name: sympy.Symbol(name, integer=True, nonnegative=True) for name in names_in_axis(axis)}
    # Python's own operators compute with symbols as they do with numbers.
    return sympy.sympify(evaluate_axis(axis, names))


def expression_of(size: Any) -> Any:
    """The sympy expression behind a size; None for a plain number."""
    return getattr(getattr(size, "node", None), "expr", None)


def rename_size(size: Any, symbols: Mapping[sympy.Symbol, sympy.Expr]) -> int | str:
    """A size of the captured program as the graph shall show it."""
    expression = expression_of(size)
    if expression is None:
        return int(size)
    renamed = expression.xreplace(dict(symbols))
    return int(renamed) if renamed.is_Integer else str(renamed)
