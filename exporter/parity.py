"""The parity step: the saved file in ONNX Runtime against the original eager module, over every case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from torch import nn
from torch.utils import _pytree as pytree

from exporter.arguments import Arguments, arguments_of
from exporter.arrays import run_session, to_array
from exporter.assumptions import Assumption
from exporter.axes import AxisError, evaluate_axis
from exporter.cases import Case, describe_sizes
from exporter.comparison import NONFINITE, compare, same_bits
from exporter.device import CPU_PROVIDERS, choose_memory
from exporter.errors import FailureKind, StepError
from exporter.evidence import CaseRecord, DimRecord, OutputParity
from exporter.float64_run import Float64Run
from exporter.inputs import make_inputs
from exporter.noise_floor import measure_noise
from exporter.result import TensorRecord
from exporter.sessions import make_options
from exporter.spec import ExportSpec, NoiseFloor, PrecisionName
from exporter.structures import open_dataclasses

__all__ = ["judge", "open_session", "prove_dims", "run_cases", "run_torch", "worst_miss"]


def open_session(
    path: Path, *, prepack: bool, threads: int, providers: Sequence[Any] = CPU_PROVIDERS
) -> ort.InferenceSession:
    """Open a file in ONNX Runtime.

    Args:
        path: The saved model.
        prepack: Lay out weights for speed, at the price of a second copy of them. Without it they are mapped.
        threads: Of one operator.
        providers: What it runs on, by priority; `exporter.device` chooses.

    Raises:
        StepError: ONNX Runtime does not implement an operator of the graph for its types, or refuses the file.
    """
    try:
        return ort.InferenceSession(str(path), make_options(threads, prepack=prepack), providers=list(providers))
    except ort_errors.NotImplemented as error:
        raise StepError(FailureKind.parity_unsupported, str(error)) from error
    except (
        ort_errors.Fail,
        ort_errors.InvalidArgument,
        ort_errors.InvalidGraph,
        ort_errors.InvalidProtobuf,
    ) as error:
        raise StepError(FailureKind.ort_load, f"ONNX Runtime refuses the file: {error}") from error


def run_cases(
    session: ort.InferenceSession,
    module: nn.Module,
    spec: ExportSpec,
    cases: list[Case],
    outputs: list[TensorRecord],
) -> Iterator[CaseRecord]:
    """Run torch and ONNX Runtime on the inputs of each case, and compare all outputs.

    In the first case both are run twice: a model that disagrees with itself cannot be judged.

    Args:
        session: On the saved file.
        module: The original, in eval mode.
        spec: Gives the inputs and the tolerance.
        cases: At least one.
        outputs: As the saved graph declares them; what it says of their shapes has to hold in every case.

    Raises:
        StepError: A run failed, the number of outputs differs, a shape is not as the graph says, or a model
            disagrees with itself.
    """
    arguments = arguments_of(module, spec.model)
    # What a narrower format costs is no rounding error of float32.
    is_fp32 = spec.precision.name is PrecisionName.fp32
    noise_floor = spec.parity.noise_floor if is_fp32 else NoiseFloor.off
    float64 = Float64Run(module, noise_floor, choose_memory(spec.export.device))
    for index, case in enumerate(cases):
        inputs = make_inputs(spec.model, case, spec.export.device)
        expected = run_torch(module, arguments, inputs, case)
        actual = _run_ort(session, inputs, case)
        if len(expected) != len(actual):
            names = ", ".join(actual)
            raise StepError(
                FailureKind.interface_mismatch, f"forward returns {len(expected)} tensors, the graph gives {names}"
            )
        if index == 0:
            _require_same("PyTorch", expected, run_torch(module, arguments, inputs, case), list(actual))
            _require_same(
                "ONNX Runtime", list(actual.values()), list(_run_ort(session, inputs, case).values()), list(actual)
            )
        for record in outputs:
            _require_declared_shape(record, actual[record.name].shape, case)
        compared = [
            compare(name, wanted, found, spec.precision, allow_nonfinite=_allows_nonfinite(spec, name))
            for wanted, (name, found) in zip(expected, actual.items(), strict=True)
        ]
        exact = float64.run(arguments.arrange(inputs), expected)
        yield CaseRecord(
            name=case.name,
            sizes=dict(case.sizes),
            seed=case.seed,
            outputs=compared if exact is None else _add_noise(compared, expected, list(actual.values()), exact, spec),
            noise_reason=float64.reason,
        )


def judge(cases: list[CaseRecord], assumptions: Sequence[Assumption] = ()) -> None:
    """Turn a miss in any case into the verdict; where there is a noise floor, `noise_floor.settle` comes before.

    Args:
        cases: All that were run.
        assumptions: What the captured graph takes for granted; a miss where one does not hold says why.

    Raises:
        StepError: With the worst output over all cases.
    """
    worst = worst_miss(cases)
    if worst is None:
        return
    case, output = worst
    difference = "" if output.max_abs_diff is None else f", max_abs_diff {output.max_abs_diff:.3g}"
    cause = f"output {output.output!r}, case {case.name} ({describe_sizes(case.sizes)}): {output.reason}{difference}"
    names = {case.name for case in cases if not case.passed}
    cause = f"{cause}; {len(names)} of {len(cases)} cases missed"
    # Where an assumption is broken in all cases that missed, and in no other, it is to blame.
    for one in assumptions:
        if names == {case.name for case in cases if not one.holds_for(case.sizes)}:
            raise StepError(FailureKind.baked_branch, f"the graph holds for {one.text} only: {cause}")
    kind = FailureKind.nonfinite if output.reason.startswith(NONFINITE) else FailureKind.parity_failed
    hint = ""
    if output.noise is not None and output.num_mismatched == 0:
        hint = "rtol and atol alone would pass it: try export.optimize=none; docs/parity.md says what is measured here"
    raise StepError(kind, cause, hint)


def worst_miss(cases: list[CaseRecord]) -> tuple[CaseRecord, OutputParity] | None:
    """The case and the output that say best what is wrong; None where all passed."""
    missed = [(case, output) for case in cases for output in case.outputs if not output.passed]
    return max(missed, key=lambda pair: _badness(pair[1]), default=None)


def prove_dims(spec: ExportSpec, cases: list[CaseRecord]) -> list[DimRecord]:
    """For each declared dim, the sizes at which parity held."""
    held = [case for case in cases if case.passed]
    return [
        DimRecord(
            name=name,
            min=dim.min,
            max=dim.max,
            example=dim.example,
            proven_sizes=sorted({case.sizes[name] for case in held}),
        )
        for name, dim in spec.model.dims.items()
    ]


def _add_noise(
    compared: list[OutputParity],
    expected: list[NDArray[Any]],
    actual: list[NDArray[Any]],
    exact: list[NDArray[Any]],
    spec: ExportSpec,
) -> list[OutputParity]:
    return [
        # What could not be subtracted has no error to measure.
        output if output.max_abs_diff is None else replace(output, noise=measure_noise(*three, spec.precision))
        for output, three in zip(compared, zip(expected, actual, exact, strict=True), strict=True)
    ]


def _badness(output: OutputParity) -> float:
    # What could not be subtracted (shape, dtype, NaN) is worse than any number.
    return float("inf") if output.max_abs_diff is None else output.max_abs_diff


def _allows_nonfinite(spec: ExportSpec, output: str) -> bool:
    declared = spec.model.outputs.get(output)
    return declared is not None and declared.nonfinite


def run_torch(
    module: nn.Module, arguments: Arguments, inputs: Mapping[str, torch.Tensor], case: Case
) -> list[NDArray[Any]]:
    """The tensors that the eager module returns, in order.

    Raises:
        StepError: It fails.
    """
    # Clones: a forward that writes to its arguments must not change what ONNX Runtime is given.
    call = arguments.arrange({name: tensor.clone() for name, tensor in inputs.items()})
    try:
        with torch.inference_mode():
            returned = module(*call.args, **call.kwargs)
    except (MemoryError, torch.OutOfMemoryError):
        # No fault of forward.
        raise
    except Exception as error:
        # What a model raises itself at a size: a division by zero, an index that is not there.
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise StepError(FailureKind.forward_error, f"PyTorch in case {_describe(case)}: {kind}{error}") from error
    leaves = pytree.tree_leaves(open_dataclasses(returned))
    return [to_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _run_ort(session: ort.InferenceSession, inputs: Mapping[str, torch.Tensor], case: Case) -> dict[str, NDArray[Any]]:
    feeds = {name: to_array(tensor) for name, tensor in inputs.items()}
    try:
        return run_session(session, feeds)
    except ort_errors.NotImplemented as error:
        raise StepError(FailureKind.parity_unsupported, f"case {_describe(case)}: {error}") from error
    except Exception as error:
        # ONNX Runtime raises RuntimeError, ValueError and its own types here.
        raise StepError(FailureKind.runtime_error, f"ONNX Runtime in case {_describe(case)}: {error}") from error


def _describe(case: Case) -> str:
    return f"{case.name} ({describe_sizes(case.sizes)})"


def _require_declared_shape(record: TensorRecord, found: tuple[int, ...], case: Case) -> None:
    wanted = [_expect_size(axis, case) for axis in record.shape]
    fits = len(wanted) == len(found) and all(one in (None, other) for one, other in zip(wanted, found, strict=True))
    if not fits:
        raise StepError(
            FailureKind.interface_mismatch,
            f"output {record.name!r} is {record.shape} in the graph, and came out as {list(found)} in case "
            f"{_describe(case)}",
        )


def _expect_size(axis: int | str, case: Case) -> int | None:
    """None where the graph's name for the axis says nothing of its size, as for a size that comes from values."""
    try:
        return evaluate_axis(axis, case.sizes)
    except AxisError:
        return None


def _require_same(who: str, first: list[NDArray[Any]], second: list[NDArray[Any]], names: list[str]) -> None:
    for name, one, other in zip(names, first, second, strict=True):
        if not same_bits(one, other):
            raise StepError(FailureKind.nondeterministic, f"{who} gives two results for {name!r} on the same inputs")
