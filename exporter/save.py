"""The save step: the graph under its final names, without a trace of the machine it was made on."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from exporter.capture import Captured
from exporter.debug_copy import collect_metadata, write_debug_copy
from exporter.directory import ExportDirectory
from exporter.graph_names import all_values, rename_values
from exporter.provenance import model_properties
from exporter.spec import ModelSpec
from exporter.transposed import write_transposed_by_blocks

__all__ = ["save", "separate_outputs", "write_program"]

_FILE_MODE = 0o644


def save(captured: Captured, directory: ExportDirectory, model: ModelSpec) -> None:
    """Write model.onnx and, for tensors over 256 bytes, model.onnx.data.

    The bytes depend on the model and the versions alone: stack traces, source lines and absolute paths, which
    the exporter puts into the metadata, are removed first. Tensors go to disk one by one. With
    `model.debug_metadata` a second graph, model.debug.onnx, keeps them.
    """
    trace = collect_metadata(captured.program.model) if model.debug_metadata else None
    write_program(captured.program, captured.output_names, directory, model_properties(model, directory))
    if trace is not None:
        write_debug_copy(trace, directory)
        directory.model_debug.chmod(_FILE_MODE)


def write_program(
    program: torch.onnx.ONNXProgram,
    output_names: Sequence[str],
    directory: ExportDirectory,
    properties: Mapping[str, str],
) -> None:
    """Write a program's model under its final names; the program is changed by it.

    Args:
        program: After all passes.
        output_names: Of the graph, in order.
        directory: Exists.
        properties: All that is to stand in `metadata_props`.
    """
    graph = program.model.graph
    separate_outputs(graph)
    rename_values(graph, dict(zip(output_names, graph.outputs, strict=True)))
    _clear_metadata(program.model)
    program.model.metadata_props.update(properties)
    write_transposed_by_blocks(program.model)
    program.save(directory.model, external_data=True)
    if directory.model_data.exists() and directory.model_data.stat().st_size == 0:
        # Written even where every tensor is small enough to stand in the graph.
        directory.model_data.unlink()
    for path in (directory.model, directory.model_data):
        if path.exists():
            # onnx_ir makes the data file private to its owner.
            path.chmod(_FILE_MODE)


def separate_outputs(graph: ir.Graph) -> None:
    """See that each output is a value of its own: not an input, an initializer or a second use of another.

    Before the passes run, too: onnx_ir's own pass for this renames the input.
    """
    seen: set[int] = set()
    for index, value in enumerate(graph.outputs):
        if id(value) in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            copied = node.outputs[0]
            copied.shape, copied.type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = copied
        seen.add(id(graph.outputs[index]))


def _clear_metadata(model: ir.Model) -> None:
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.producer_version = torch.__version__.split("+")[0]
    for value in all_values(model.graph):
        value.metadata_props.clear()
