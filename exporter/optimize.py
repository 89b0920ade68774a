"""The optimize step: passes over the captured graph."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from exporter.passes import name_passes, run_passes
from exporter.precision import QUANTIZED, convert
from exporter.result import PassRecord
from exporter.save import separate_outputs
from exporter.spec import ExportSpec, PassName, PrecisionName

__all__ = ["count_nodes", "optimize"]


def optimize(program: torch.onnx.ONNXProgram, spec: ExportSpec, scratch: Path) -> Iterator[PassRecord]:
    """Run what the spec asks for on the program, in place, and tell of each pass what it changed.

    The conversion to another precision comes last, and is recorded like a pass.

    Args:
        program: As captured.
        spec: Names the passes and the precision.
        scratch: A directory for files that a conversion needs meanwhile; made and removed here.

    Raises:
        StepError: A pass failed, and the cause names it; or the precision does not apply to the graph.
    """
    names = name_passes(spec.export.optimize)
    if spec.precision.name in QUANTIZED and not {PassName.default, PassName.fold_constants} & {*names}:
        # Weights are captured with a Transpose behind them, and the quantizers pass over what is not constant.
        names.append(PassName.fold_constants)
    if spec.precision.name is PrecisionName.fp16 and not {PassName.default, PassName.lift_constants} & {*names}:
        # The converter takes the value of a Constant for half precision and leaves it as it is.
        names.append(PassName.lift_constants)
    if names:
        separate_outputs(program.model.graph)
    yield from run_passes(program, names)
    if spec.precision.name in (PrecisionName.fp32, PrecisionName.bf16):
        # bf16 is there since capture.
        return
    scratch.mkdir()
    try:
        yield from convert(program, spec.precision.name, scratch)
    finally:
        shutil.rmtree(scratch)


def count_nodes(program: torch.onnx.ONNXProgram) -> int:
    """Nodes of the graph and of all its subgraphs."""
    return sum(1 for _ in program.model.graph.all_nodes())
