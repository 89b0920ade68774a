"""The capture step: `torch.onnx.export(dynamo=True)` on the example, with each declared dim symbolic.

Never `verbose` (it prints to stdout, and fails where stdout is ASCII or closed) and never `verify` (it does not
raise, and passes NaN and wrong shapes); optimizing is a step of its own.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import nn
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument

from exporter.arguments import Arguments, arguments_of, nest
from exporter.assumptions import Assumption, read_assumptions
from exporter.errors import FailureKind, StepError
from exporter.graph_names import choose_output_names, name_inputs, name_sizes
from exporter.spec import ExportSpec
from exporter.structures import returns_containers
from exporter.symbols import declared_axes, find_placeholders, map_symbols, parse_axis
from exporter.translation_table import TranslationTable

__all__ = ["UNBOUNDED", "Captured", "DimRange", "assume_ranges", "capture"]

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
    # Of the program, by the inputs' names.
    placeholders: dict[str, str]
    ranges: list[DimRange]
    assumptions: list[Assumption]
    strategy: str


def capture(
    module: nn.Module,
    spec: ExportSpec,
    example: dict[str, torch.Tensor],
    report: Path,
    table: TranslationTable | None = None,
) -> Captured:
    """Capture and translate a module.

    Args:
        module: In eval mode.
        spec: Gives the dims, the opset and the names.
        example: The inputs at the example sizes, by name.
        report: Where torch's Markdown report is put if the conversion fails; its directory must exist.
        table: ONNX functions of the user's own.

    Raises:
        StepError: An axis declared dynamic came out as a number, or the outputs are not the declared ones.
        Exception: Whatever torch.onnx.export raises.
    """
    arguments = arguments_of(module, spec.model)
    with torch.no_grad(), _quiet(), _torch_report(report), _recurrent_layers(), _keep_exported() as exported:
        try:
            with returns_containers(module):
                program = _export(module, spec, arguments, example, report.parent, table)
        except Exception:
            # torch fails on an output that is no tensor too, with words that do not say so.
            if exported:
                _require_tensors(exported[-1])
            raise
    decomposed = program.exported_program
    assert decomposed is not None
    _require_tensors(exported[-1] if exported else decomposed)
    names = arguments.arrange({name: name for name in spec.model.inputs}, with_constants=False)
    placeholders = find_placeholders(decomposed, names)
    ranges = list(_read_ranges(decomposed, spec, placeholders))
    output_names = choose_output_names(decomposed, spec)
    name_inputs(program.model.graph, list(placeholders), spec.model.inputs)
    name_sizes(program, spec, placeholders, output_names)
    return Captured(
        program=program,
        output_names=output_names,
        placeholders=placeholders,
        ranges=ranges,
        assumptions=read_assumptions(exported[-1], spec, find_placeholders(exported[-1], names)) if exported else [],
        strategy=str(getattr(program, "_capture_strategy", "") or ""),
    )


def _export(
    module: nn.Module,
    spec: ExportSpec,
    arguments: Arguments,
    example: dict[str, torch.Tensor],
    artifacts: Path,
    table: TranslationTable | None,
) -> torch.onnx.ONNXProgram:
    call = arguments.arrange(example)
    program = torch.onnx.export(
        module,
        # Without keywords a last dict would be taken for them.
        (*call.args, {}) if call.args and not call.kwargs else call.args,
        kwargs=call.kwargs,
        dynamo=True,
        verbose=False,
        optimize=False,
        opset_version=spec.export.opset_version,
        dynamic_shapes=_dynamic_shapes(spec, arguments),
        custom_translation_table=table,
        report=True,
        artifacts_dir=artifacts,
    )
    if program is None:
        raise StepError(FailureKind.capture_error, "torch.onnx.export returned nothing")
    return program


def _dynamic_shapes(spec: ExportSpec, arguments: Arguments) -> dict[str, Any]:
    """For each argument of `forward`, which axes of its tensors stay dynamic; nested as the tensors are.

    `Dim.DYNAMIC`, which is also what a string stands for, makes torch raise where the model fixes an axis. A named
    `Dim` is silently made static instead.
    """
    axes = {
        name: {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(item.shape) if isinstance(size, str)}
        for name, item in spec.model.inputs.items()
    }
    shapes = nest(spec.model, axes, with_constants=False)
    collected = [name for name in shapes if name not in arguments.parameters]
    if collected:
        # It checks these under the name of **kwargs in one place, and under their own in another.
        raise StepError(
            FailureKind.signature_mismatch,
            f"forward takes {', '.join(collected)} by its **kwargs alone, which torch.export does not capture here",
            "wrap the model in a module whose forward names them",
        )
    return shapes


def _require_tensors(exported: torch.export.ExportedProgram) -> None:
    returned = [one.arg for one in exported.graph_signature.output_specs if one.kind is OutputKind.USER_OUTPUT]
    for index, value in enumerate(returned):
        if isinstance(value, TensorArgument) or (isinstance(value, ConstantArgument) and value.value is None):
            continue
        if isinstance(value, ConstantArgument):
            found = f"{value.value!r}, of type {type(value.value).__name__}"
        else:
            found = "a number computed from sizes or values"
        raise StepError(
            FailureKind.interface_mismatch,
            f"output {index} of forward is {found}, not a tensor",
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


def _read_ranges(
    exported: torch.export.ExportedProgram, spec: ExportSpec, placeholders: Mapping[str, str]
) -> Iterator[DimRange]:
    symbols = map_symbols(exported, spec, placeholders)
    for name, axis, dim, size in declared_axes(exported, spec, placeholders):
        place = f"(axis {axis} of {name!r})"
        if isinstance(size, int):
            raise StepError(FailureKind.dim_specialized, f"{dim!r} {place} came out fixed at {size}")
        found = size.node.expr.xreplace(dict(symbols))
        if found != parse_axis(dim) and sympy.expand(found - parse_axis(dim)) != 0:
            raise StepError(
                FailureKind.dim_conflict,
                f"{dim!r} {place} is always {found} in forward",
                f"write {found} in the shape in place of {dim}",
            )
        bounds = exported.range_constraints.get(size.node.expr)
        # What is computed from dims ranges as they do.
        if bounds is not None and dim in spec.model.dims:
            yield DimRange(dim, name, axis, max(0, _bound(bounds.lower)), _bound(bounds.upper))


def assume_ranges(ranges: Iterable[DimRange]) -> list[Assumption]:
    """The ranges in the form of assumptions: what parity misses beyond one is that range's doing."""
    return [
        Assumption(
            f"{item.dim} from {item.min} to {item.max if item.max < UNBOUNDED else 'any'}",
            (item.dim,),
            partial(_is_within, item),
        )
        for item in ranges
    ]


def _is_within(item: DimRange, size: int) -> bool:
    return item.min <= size <= item.max


def _bound(value: Any) -> int:
    # sympy's and torch's infinities have no int(); a sympy Integer knows that it is one.
    return min(int(value), UNBOUNDED) if value.is_Integer else UNBOUNDED
