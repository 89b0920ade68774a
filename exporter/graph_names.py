"""The names in the graph are the config's: inputs, outputs and symbolic sizes."""

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir
import sympy
import torch
from torch.utils import _pytree as pytree

from exporter.axes import AxisError
from exporter.errors import FailureKind, StepError
from exporter.spec import ExportSpec
from exporter.symbols import map_symbols, parse_axis, rename_size

__all__ = ["all_values", "choose_output_names", "name_inputs", "name_sizes", "rename_values"]


def all_values(graph: ir.Graph) -> list[ir.Value]:
    """Every named value of a graph and its subgraphs."""
    values = [*graph.inputs, *graph.initializers.values()]
    values.extend(output for node in graph.all_nodes() for output in node.outputs)
    return values


def rename_values(graph: ir.Graph, wanted: Mapping[str, ir.Value]) -> None:
    """Give values their names, moving aside others that hold one of them."""
    for value in all_values(graph):
        name = str(value.name)
        if name in wanted and wanted[name] is not value:
            value.name = f"{name}_internal"
    for name, value in wanted.items():
        value.name = name


def name_inputs(graph: ir.Graph, names: Iterable[str], order: Iterable[str]) -> None:
    """Name the graph's inputs, and put them into the declared order.

    Args:
        graph: As torch made it.
        names: One for each input, in the order in which the graph has them.
        order: The same names as declared.
    """
    by_name = dict(zip(names, graph.inputs, strict=True))
    rename_values(graph, by_name)
    graph.inputs.clear()
    graph.inputs.extend(by_name[name] for name in order)


def name_sizes(
    program: torch.onnx.ONNXProgram, spec: ExportSpec, placeholders: Mapping[str, str], output_names: list[str]
) -> None:
    """Write the declared dims, and arithmetic on them, where torch has symbols of its own.

    Args:
        program: Its graph's inputs have their names and their declared order already.
        spec: Gives the dims.
        placeholders: From `find_placeholders`.
        output_names: The names that the graph's outputs are going to have.
    """
    exported = program.exported_program
    assert exported is not None
    symbols = map_symbols(exported, spec, placeholders)
    # torch's method does not look beyond the first argument that is None; these names it never finds itself.
    program.rename_axes({str(symbol): _show(expression) for symbol, expression in symbols.items()})
    for value in program.model.graph.inputs:
        declared = spec.model.inputs[str(value.name)].shape
        assert value.shape is not None
        # The graph has one axis more than declared where the input is complex.
        wanted = [*declared, *list(value.shape)[len(declared) :]]
        value.shape = ir.Shape([one if isinstance(one, str) else size for one, size in zip(wanted, value.shape)])  # noqa: B905
    for value, name, tensor in zip(program.model.graph.outputs, output_names, _output_tensors(exported), strict=True):
        if not isinstance(tensor, torch.Tensor):
            # A number computed from sizes; parity finds that forward returns no tensor there.
            continue
        sizes = [rename_size(size, symbols) for size in tensor.shape]
        declared = getattr(spec.model.outputs.get(name), "shape", None) or []
        if len(declared) == len(sizes):
            sizes = [_as_declared(size, one) for size, one in zip(sizes, declared, strict=True)]
        value.shape = ir.Shape([*sizes, *([2] if tensor.is_complex() else [])])


def _show(expression: sympy.Expr) -> str:
    return str(expression) if expression.is_Symbol else f"({expression})"


def _output_tensors(exported: torch.export.ExportedProgram) -> list[Any]:
    nodes = {node.name: node for node in exported.graph.nodes}
    return [nodes[name].meta["val"] for name in exported.graph_signature.user_outputs if isinstance(name, str)]


def _as_declared(size: int | str, declared: object) -> int | str:
    """`declared` where it says the same in other words."""
    if not isinstance(size, str) or not isinstance(declared, str):
        return size
    try:
        same = sympy.expand(parse_axis(size) - parse_axis(declared)) == 0
    except AxisError:
        same = False
    return declared if same else size


def choose_output_names(exported: torch.export.ExportedProgram, spec: ExportSpec) -> list[str]:
    """The declared names, or those of the keys that `forward` returns; None among the outputs is no output.

    A key that is also an input's name gets the suffix `_out`: values of a graph have one name each.

    Raises:
        StepError: The declared outputs are not those of `forward`.
    """
    declared = list(spec.model.outputs)
    paths = _output_paths(exported)
    names = [f"{name}_out" if (name := _join(path)) in spec.model.inputs else name for path in paths]
    if not names:
        raise StepError(FailureKind.interface_mismatch, "forward returns no tensor")
    if len(set(names)) < len(names):
        raise StepError(
            FailureKind.interface_mismatch,
            f"two outputs of forward come to one name: {', '.join(names)}",
            "rename a key of what forward returns",
        )
    if not declared:
        return names
    # Keys and fields are names already; declared in another order they must not be given to each other's tensors.
    if set(names) == set(declared):
        return names
    if not all(path and isinstance(path[0], pytree.MappingKey) for path in paths) and len(declared) == len(paths):
        return declared
    raise StepError(
        FailureKind.interface_mismatch, f"forward returns {', '.join(names)}; the config declares {', '.join(declared)}"
    )


def _output_paths(exported: torch.export.ExportedProgram) -> list[tuple[Any, ...]]:
    spec = exported.call_spec.out_spec
    returned = exported.graph_signature.user_outputs
    assert spec is not None
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    leaves, _ = pytree.tree_flatten_with_path(tree)
    return [path for path, index in leaves if isinstance(returned[index], str)]


def _join(path: tuple[Any, ...]) -> str:
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    if not parts:
        return "output"
    name = "_".join(parts)
    return f"output_{name}" if not name or name[0].isdigit() else name
