"""What links the saved graph to the captured program: which of its values is which node, and whose code that was.

Read before the save step strips this from the graph. It holds the captured program, which shares its weights with
the module, and no part of the ONNX graph.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from exporter.capture import Captured
from exporter.save import separate_outputs

__all__ = ["Trace", "locate_module", "locate_source", "read_trace"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n\s*(?P<code>[^\n]*)')
_TORCH = Path(torch.__file__).parent


@dataclass(frozen=True)
class Trace:
    """The captured program, and the names of the saved graph's values that are values of it too."""

    program: torch.export.ExportedProgram
    # Name of an input -> name of the program's placeholder for it.
    placeholders: dict[str, str]
    # Name in the saved graph -> name of the fx node; what the passes fused away is not among them.
    nodes: dict[str, str]


def read_trace(captured: Captured) -> Trace:
    """Read the trace of a program that is about to be saved, under the names that its values will have then."""
    program = captured.program.exported_program
    assert program is not None
    graph = captured.program.model.graph
    separate_outputs(graph)
    known = {node.name for node in program.graph.nodes if node.op == "call_function"}
    outputs = {id(value): name for value, name in zip(graph.outputs, captured.output_names, strict=True)}
    nodes: dict[str, str] = {}
    for node in graph:
        for value in node.outputs:
            if value.name is not None and value.name in known:
                nodes[_saved_name(value.name, outputs.get(id(value)), captured.output_names)] = value.name
    return Trace(program, captured.placeholders, nodes)


def _saved_name(name: str, output: str | None, outputs: list[str]) -> str:
    """The name after `exporter.save` has named the outputs and moved aside who held one of their names."""
    if output is not None:
        return output
    return f"{name}_internal" if name in outputs else name


def locate_module(node: torch.fx.Node) -> str:
    """The dotted path of the innermost module that a node belongs to; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    return paths[-1] if paths else ""


def locate_source(node: torch.fx.Node) -> str:
    """The innermost line outside torch that a node comes from: `file.py:12: return self.norm(x)`."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    own = [frame for frame in frames if not Path(frame["file"]).is_relative_to(_TORCH)]
    if not (own or frames):
        return ""
    frame = (own or frames)[-1]
    return f"{Path(frame['file']).name}:{frame['line']}: {frame['code'].strip()}"
