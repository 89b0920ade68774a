"""The optimize step: passes over the captured graph."""

from collections.abc import Iterator

import torch

from exporter.passes import name_passes, run_passes
from exporter.result import PassRecord
from exporter.save import separate_outputs
from exporter.spec import ExportSpec

__all__ = ["count_nodes", "optimize"]


def optimize(program: torch.onnx.ONNXProgram, spec: ExportSpec) -> Iterator[PassRecord]:
    """Run what the spec asks for on the program, in place, and tell of each pass what it changed.

    Raises:
        StepError: A pass failed; the cause names it.
    """
    names = name_passes(spec.export.optimize)
    if names:
        separate_outputs(program.model.graph)
    yield from run_passes(program, names)


def count_nodes(program: torch.onnx.ONNXProgram) -> int:
    """Nodes of the graph and of all its subgraphs."""
    return sum(1 for _ in program.model.graph.all_nodes())
