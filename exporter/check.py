"""The check step: is the saved file valid ONNX, and is it what was asked for?

Works on the file, never on the program in memory: the file is what ships.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from exporter.capture import UNBOUNDED, DimRange
from exporter.cases import Case, all_sizes
from exporter.errors import FailureKind, StepError
from exporter.result import TensorRecord
from exporter.spec import DType, ExportSpec
from exporter.subgraphs import graphs_of
from exporter.validation import PROVEN_OPSETS

__all__ = ["CheckedGraph", "check"]


# A graph has a last axis of 2 in place of the complex number.
_REAL_OF_COMPLEX = {DType.complex64: DType.float32, DType.complex128: DType.float64}


@dataclass(frozen=True)
class CheckedGraph:
    """What the saved file declares and holds."""

    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    op_counts: dict[str, int]


def check(path: Path, spec: ExportSpec, ranges: Iterable[DimRange], cases: Sequence[Case]) -> CheckedGraph:
    """Run ONNX's full checker on a file and hold the graph against the spec.

    Args:
        path: The saved file.
        spec: What was asked for.
        ranges: The sizes that the captured graph is said to hold for.
        cases: What parity will try; the sizes beyond a range have to be among them.

    Raises:
        StepError: The file is not valid, its opset is another one, or a name, dtype or shape is not the one
            asked for; or the graph holds for fewer sizes than a dim declares.
    """
    model = onnx.load(str(path), load_external_data=False)
    # Before the checker: operators of the asked-for opset in a file that claims another are invalid for that alone.
    _check_opset(model, spec.export.opset_version)
    try:
        # By path: a model of over 2 GiB cannot be checked in memory.
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise StepError(FailureKind.invalid_onnx, f"onnx.checker: {error}") from error
    graph = CheckedGraph(
        inputs=[_describe(value) for value in model.graph.input],
        outputs=[_describe(value) for value in model.graph.output],
        op_counts=dict(sorted(Counter(_op_types(model)).items())),
    )
    _check_inputs(graph.inputs, spec)
    _check_outputs(graph.outputs, spec)
    _check_ranges(ranges, spec, cases)
    return graph


def _check_opset(model: onnx.ModelProto, wanted: int) -> None:
    # The exporter keeps another opset, with no more than a log line, where it cannot convert.
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    found = opsets.get("")
    # A file that names none is not valid at all, which the checker says better.
    if opsets and found != wanted:
        raise StepError(
            FailureKind.opset_mismatch,
            f"asked for opset {wanted}, the file says {found}: the exporter could not convert this model",
            f"choose an export.opset_version from {PROVEN_OPSETS[0]} to {PROVEN_OPSETS[1]}",
        )


def _describe(value: onnx.ValueInfoProto) -> TensorRecord:
    tensor = value.type.tensor_type
    shape: list[int | str] = [
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or "?") for axis in tensor.shape.dim
    ]
    return TensorRecord(name=value.name, dtype=_dtype_name(tensor.elem_type), shape=shape)


def _dtype_name(elem_type: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(elem_type)).lower()
    known = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2"}
    return known.get(name, name)


def _op_types(model: onnx.ModelProto) -> Iterable[str]:
    for graph in graphs_of(model):
        for node in graph.node:
            yield f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _check_inputs(found: list[TensorRecord], spec: ExportSpec) -> None:
    names = [record.name for record in found]
    wanted = list(spec.model.inputs)
    if names != wanted:
        raise StepError(
            FailureKind.interface_mismatch, f"the graph takes {', '.join(names)}; the config says {', '.join(wanted)}"
        )
    for record, item in zip(found, spec.model.inputs.values(), strict=True):
        dtype = DType(item.dtype)
        real = _REAL_OF_COMPLEX.get(dtype)
        if record.dtype != (real or dtype).value:
            raise StepError(
                FailureKind.interface_mismatch,
                f"input {record.name!r} is {record.dtype} in the graph; the config says {dtype.value}",
            )
        _check_shape("input", record, [*item.shape, 2] if real else item.shape)


def _check_outputs(found: list[TensorRecord], spec: ExportSpec) -> None:
    names = [record.name for record in found]
    declared = spec.model.outputs
    if declared and set(names) != set(declared):
        raise StepError(
            FailureKind.interface_mismatch,
            f"the graph gives {', '.join(names)}; the config says {', '.join(declared)}",
        )
    for record in found:
        output = spec.model.outputs.get(record.name)
        if output is not None and output.shape is not None:
            _check_shape("output", record, output.shape)


def _check_shape(role: str, record: TensorRecord, wanted: list[int | str]) -> None:
    if record.shape != wanted:
        raise StepError(
            FailureKind.interface_mismatch,
            f"{role} {record.name!r} is {record.shape} in the graph; the config says {wanted}",
        )


def _check_ranges(ranges: Iterable[DimRange], spec: ExportSpec, cases: Sequence[Case]) -> None:
    """Refuse a graph that holds for fewer sizes than declared, unless parity tries each of the others.

    torch.export drops the guards of a branch on a shape; what is left of them are these ranges. They also come out
    narrower than they are: `size > 1 and ...` in a model, or torch's own choice of a memory format, give "2 and
    more". Then parity at size 1 is the better judge.
    """
    for item in ranges:
        dim = spec.model.dims[item.dim]
        tried = {case.sizes[item.dim] for case in cases}
        sizes = all_sizes(dim)
        # The first within the range, and the first beyond it.
        start, end = bisect_left(sizes, item.min), bisect_right(sizes, item.max)
        if _all_in(sizes[:start], tried) and _all_in(sizes[end:], tried):
            continue
        upper = item.max if item.max < UNBOUNDED else "any"
        raise StepError(
            FailureKind.dim_narrowed,
            f"dim {item.dim!r} is declared {dim.min} to {dim.max}, the captured graph holds for {item.min} to "
            f"{upper} (axis {item.axis} of {item.input!r}): forward branches on this size",
        )


def _all_in(sizes: range, tried: set[int]) -> bool:
    return len(sizes) <= len(tried) and tried.issuperset(sizes)
