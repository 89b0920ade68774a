"""The capture step: `torch.onnx.export(dynamo=True)` on the example, with each declared dim symbolic.

Never `verbose` (it prints to stdout, and fails where stdout is ASCII or closed) and never `verify` (it does not
raise, and passes NaN and wrong shapes); optimizing is a step of its own.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition
from torch.utils import _pytree as pytree

from exporter.assumptions import Assumption, declared_axes, read_assumptions
from exporter.errors import FailureKind, StepError
from exporter.spec import ExportSpec

__all__ = ["UNBOUNDED", "Captured", "DimRange", "capture"]

# torch stands infinity for "no upper bound"; no tensor axis reaches this.
UNBOUNDED = 2**62


@dataclass(frozen=True)
class DimRange:
    """The sizes for which torch.export says that the captured graph holds."""

    dim: str
    input: str
    axis: int
    min: int
    max: int


@dataclass(frozen=True)
class Captured:
    """The ONNX program in memory and what capture found out about the model."""

    program: torch.onnx.ONNXProgram
    # Names for the graph's outputs, in order.
    output_names: list[str]
    ranges: list[DimRange]
    assumptions: list[Assumption]
    strategy: str


def capture(module: nn.Module, spec: ExportSpec, example: dict[str, torch.Tensor], report: Path) -> Captured:
    """Capture and translate a module.

    Args:
        module: In eval mode.
        spec: Gives the dims, the opset and the names.
        example: Arguments of `forward` at the example sizes, in the order that the graph's inputs shall have.
        report: Where torch's Markdown report is put if the conversion fails; its directory must exist.

    Raises:
        StepError: An axis declared dynamic came out as a number, or the outputs are not the declared ones.
        Exception: Whatever torch.onnx.export raises.
    """
    with torch.no_grad(), _quiet(), _torch_report(report), _recurrent_layers(), _keep_exported() as exported:
        try:
            program = _export(module, spec, example, report.parent)
        except Exception:
            # torch fails on an output that is no tensor too, with words that do not say so.
            if exported:
                _require_tensors(exported[-1])
            raise
    return Captured(
        program=program,
        output_names=_name_outputs(program, spec),
        ranges=list(_read_ranges(program, spec)),
        assumptions=read_assumptions(exported[-1], spec) if exported else [],
        strategy=str(getattr(program, "_capture_strategy", "") or ""),
    )


def _export(
    module: nn.Module, spec: ExportSpec, example: dict[str, torch.Tensor], artifacts: Path
) -> torch.onnx.ONNXProgram:
    program = torch.onnx.export(
        module,
        (),
        kwargs=dict(example),
        dynamo=True,
        verbose=False,
        optimize=False,
        opset_version=spec.export.opset_version,
        # Strings make torch raise where the model fixes a dim; `Dim` objects are silently made static.
        dynamic_shapes={
            name: {axis: size for axis, size in enumerate(item.shape) if isinstance(size, str)}
            for name, item in spec.model.inputs.items()
        },
        report=True,
        artifacts_dir=artifacts,
    )
    if program is None:
        raise StepError(FailureKind.capture_error, "torch.onnx.export returned nothing")
    return program


def _require_tensors(exported: torch.export.ExportedProgram) -> None:
    for index, value in enumerate(exported.graph_signature.user_outputs):
        if value is not None and not isinstance(value, str):
            raise StepError(
                FailureKind.interface_mismatch,
                f"output {index} of forward is {value!r}, of type {type(value).__name__}, not a tensor",
                "return tensors only, or None",
            )


@contextmanager
def _recurrent_layers() -> Iterator[None]:
    """Keep the time of GRU and LSTM layers dynamic.

    torch applies its while-loop form of them only during capture; the decomposition after it fixes time at the
    example's size, and leaves that size in a cache for the next capture in this process. Applied around both, all
    stays dynamic. https://github.com/pytorch/pytorch/issues/191855
    """
    with register_gru_while_loop_decomposition(), register_lstm_while_loop_decomposition():
        yield


@contextmanager
def _keep_exported() -> Iterator[list[torch.export.ExportedProgram]]:
    """Collect what torch.export makes on the way.

    The program that torch.onnx.export gives back is decomposed, and has lost the assertions on shapes.
    """
    original = torch.export.export
    kept: list[torch.export.ExportedProgram] = []

    def export_and_keep(*args: Any, **kwargs: Any) -> torch.export.ExportedProgram:
        kept.append(original(*args, **kwargs))
        return kept[-1]

    torch.export.export = export_and_keep
    try:
        yield kept
    finally:
        torch.export.export = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's expected chatter out of the log: one line for each torchvision operator, and such."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Two inputs that share a dim: the second name is the first one's, as was asked for.
            warnings.filterwarnings("ignore", message=".*shares the same shape constraints.*")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _torch_report(report: Path) -> Iterator[None]:
    """Give torch's report, whose name holds a time, a fixed name on failure; drop it on success."""
    before = set(report.parent.glob("onnx_export_*.md"))
    failed = True
    try:
        yield
        failed = False
    finally:
        written = sorted(set(report.parent.glob("onnx_export_*.md")) - before)
        for path in written[:-1] if failed else written:
            path.unlink()
        if failed and written:
            written[-1].replace(report)


def _read_ranges(program: torch.onnx.ONNXProgram, spec: ExportSpec) -> Iterator[DimRange]:
    exported = program.exported_program
    if exported is None:
        return
    for name, axis, dim, size in declared_axes(exported, spec):
        if isinstance(size, int):
            raise StepError(
                FailureKind.dim_specialized,
                f"dim {dim!r} (axis {axis} of {name!r}) came out fixed at {size}",
            )
        bounds = exported.range_constraints.get(size.node.expr)
        if bounds is not None:
            yield DimRange(dim, name, axis, max(0, _bound(bounds.lower)), _bound(bounds.upper))


def _bound(value: Any) -> int:
    # sympy's and torch's infinities have no int(); a sympy Integer knows that it is one.
    return min(int(value), UNBOUNDED) if value.is_Integer else UNBOUNDED


def _name_outputs(program: torch.onnx.ONNXProgram, spec: ExportSpec) -> list[str]:
    """The declared names, or those of the keys that `forward` returns; None among the outputs is no output.

    A key that is also an input's name gets the suffix `_out`: values of a graph have one name each.

    Raises:
        StepError: The declared outputs are not those of `forward`.
    """
    declared = list(spec.model.outputs)
    paths = _output_paths(program)
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
    if all(path and isinstance(path[0], pytree.MappingKey) for path in paths):
        # Keys are names already; declared in another order they must not be given to each other's tensors.
        if set(names) == set(declared):
            return names
    elif len(declared) == len(paths):
        return declared
    raise StepError(
        FailureKind.interface_mismatch, f"forward returns {', '.join(names)}; the config declares {', '.join(declared)}"
    )


def _output_paths(program: torch.onnx.ONNXProgram) -> list[tuple[Any, ...]]:
    exported = program.exported_program
    if exported is None or exported.call_spec.out_spec is None:
        return [(pytree.SequenceKey(i),) for i in range(len(program.model.graph.outputs))]
    spec = exported.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    leaves, _ = pytree.tree_flatten_with_path(tree)
    returned = exported.graph_signature.user_outputs
    return [path for path, index in leaves if isinstance(returned[index], str)]


def _join(path: tuple[Any, ...]) -> str:
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    if not parts:
        return "output"
    name = "_".join(parts)
    return f"output_{name}" if not name or name[0].isdigit() else name
