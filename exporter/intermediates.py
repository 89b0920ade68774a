"""Values inside a model, for the search for a divergence: ONNX Runtime's by name, and torch's one by one.

Neither holds more than it is asked for: the graph gets as many outputs as there are names, with its weights left in
their file, and torch's values are let go as the run passes them.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind

from exporter import arrays
from exporter.device import CPU_PROVIDERS
from exporter.sessions import make_options

__all__ = ["flatten_inputs", "replay", "run_graph", "to_tensor"]

Visit = Callable[[torch.fx.Node, Any], Any]


def run_graph(
    path: Path,
    graph: onnx.ModelProto,
    names: list[str],
    feeds: Mapping[str, NDArray[Any]],
    threads: int,
    providers: Sequence[Any] = CPU_PROVIDERS,
) -> dict[str, NDArray[Any]]:
    """Run a saved graph for the given values instead of its outputs.

    Args:
        path: The saved file, beside which its weights lie.
        graph: The file's content without the weights; its outputs are replaced.
        names: Of values of the graph, not of subgraphs.
        feeds: The graph's inputs.
        threads: Of one operator.
        providers: As of the session that missed parity.
    """
    del graph.graph.output[:]
    # Without a type: ONNX Runtime infers it.
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = make_options(threads)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=list(providers))
    return arrays.run_session(session, feeds)


def flatten_inputs(
    program: torch.export.ExportedProgram, placeholders: Mapping[str, str], inputs: Mapping[str, torch.Tensor]
) -> list[Any]:
    """The flat list that a program takes: a copy of each input in its place, and the constants as captured."""
    given = {placeholder: inputs[name] for name, placeholder in placeholders.items()}
    return [given[value].clone() if value in given else value for value in program.graph_signature.user_inputs]


def replay(
    program: torch.export.ExportedProgram, module: nn.Module, inputs: list[Any], visit: Visit
) -> list[torch.Tensor]:
    """Run a captured program node by node.

    Args:
        program: Any; its weights are taken from the module where that has them.
        module: What was captured.
        inputs: Flat, in the program's order.
        visit: Called with each node and its value; gives back the value to go on with.

    Returns:
        The tensors that `forward` returns.
    """
    given = iter(inputs)
    values = [
        next(given) if spec.kind is InputKind.USER_INPUT else _find_tensor(program, module, str(spec.target))
        for spec in program.graph_signature.input_specs
    ]
    with torch.no_grad():
        returned = _Replay(program.graph_module, visit).run(*values)
    specs = zip(program.graph_signature.output_specs, returned, strict=True)
    return [value for spec, value in specs if spec.kind is OutputKind.USER_OUTPUT and torch.is_tensor(value)]


def _find_tensor(program: torch.export.ExportedProgram, module: nn.Module, target: str) -> Any:
    if target in program.constants:
        return program.constants[target]
    try:
        return attrgetter(target)(module)
    except AttributeError:
        return program.state_dict[target]


class _Replay(torch.fx.Interpreter):
    def __init__(self, graph: torch.fx.GraphModule, visit: Visit) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self._visit = visit

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        return self._visit(n, value) if n.op == "call_function" else value


def to_tensor(array: NDArray[Any], like: torch.Tensor) -> torch.Tensor | None:
    """An array of ONNX Runtime's as a tensor in the place of another, in its layout; None where it does not fit there.

    The layout matters: what reads the value may have been captured as a view of it.
    """
    if tuple(array.shape) != tuple(like.shape):
        return None
    return torch.empty_like(like).copy_(arrays.to_tensor(array))
