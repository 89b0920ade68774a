"""The optimize step: passes over the captured graph."""

import torch

from exporter.save import separate_outputs
from exporter.spec import Optimize

__all__ = ["count_nodes", "optimize"]


def optimize(program: torch.onnx.ONNXProgram, passes: Optimize) -> None:
    """Run the asked-for passes on the program, in place.

    `default` is `ONNXProgram.optimize()`: onnxscript's constant folding, rewrite rules, common subexpression
    elimination and removal of unused nodes.
    """
    if passes is Optimize.default:
        separate_outputs(program.model.graph)
        program.optimize()


def count_nodes(program: torch.onnx.ONNXProgram) -> int:
    """Nodes of the graph and of all its subgraphs."""
    return sum(1 for _ in program.model.graph.all_nodes())
