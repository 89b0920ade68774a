"""The rescue ladder: known ways round a failure, tried one after the other before an export is given up.

Not here: what the steps do, and what counts as correct. An attempt is judged like the first, whatever it took.
"""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, assert_never

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.onnx._internal.exporter import _capture_strategies
from torch.onnx._internal.exporter._registration import ONNXRegistry

from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.files import write_json
from exporter.result import Failure, RescueRecord, Rung, Step
from exporter.spec import ExportSpec
from exporter.steps import StepFailed, StepRecorder

__all__ = ["Attempt", "climb", "taking"]

log = logging.getLogger(__name__)

# After torch.export has done its part.
_TRANSLATION = (FailureKind.decomposition_error, FailureKind.translation_error)
# How far within the capture step an export came.
_CAPTURE_STAGES = {
    FailureKind.decomposition_error: 1,
    FailureKind.unsupported_op: 2,
    FailureKind.translation_error: 2,
}
# What ways of capturing attention can mend; asked only of a model that has attention in it.
_MENDED_BY_MATH = (FailureKind.capture_error, FailureKind.dim_specialized, FailureKind.decomposition_error)
_MENDED_BY_NO_OPTIMIZE = (
    FailureKind.optimize_error,
    FailureKind.invalid_onnx,
    FailureKind.ort_load,
    FailureKind.runtime_error,
    FailureKind.parity_failed,
    FailureKind.nonfinite,
)
_HOLDS_WITHOUT = "parity holds without the passes: export.optimize=none"
_FAILS_WITHOUT = "parity fails without the passes too: the optimizer is not at fault"
_ATTENTION_OP = "aten::scaled_dot_product_attention"


class Attempt(Protocol):
    """All steps after build, done in a certain way."""

    def __call__(
        self, spec: ExportSpec, directory: ExportDirectory, rungs: Sequence[Rung], findings: dict[str, Any]
    ) -> None:
        """Do them.

        Args:
            spec: With what the rungs change in it.
            directory: Exists; gets the model.
            rungs: For `taking`, around the capture.
            findings: Filled on the way.

        Raises:
            StepFailed: A step failed.
        """

    def uses_attention(self, spec: ExportSpec) -> bool:
        """Whether the module calls torch's attention on the example."""


def climb(
    attempt: Attempt,
    spec: ExportSpec,
    directory: ExportDirectory,
    recorder: StepRecorder,
    findings: dict[str, Any],
) -> None:
    """Make an attempt, and others with known ways round what failed.

    Each way is tried at most once, and kept where it got further. What a failed attempt found stays in `findings`
    only if no later one passed; then it is the first one's.

    Raises:
        StepFailed: None passed; with the failure of the first.
    """
    before = dict(findings)
    first = failure = _try(attempt, spec, directory, (), findings)
    kept: tuple[Rung, ...] = ()
    records: list[RescueRecord] = []
    while failure is not None and (rung := _choose(failure, attempt, spec, records)) is not None:
        log.info("trying %s, because %s", rung, failure)
        write_json(directory.first_failure, first)
        recorder.attempt += 1
        found: dict[str, Any] = {}
        after = _try_aside(attempt, spec, directory, (*kept, rung), found)
        helped = after is None or _progress(after) > _progress(failure)
        records.append(_record(rung, failure, helped=helped))
        if not spec.export.rescue:
            break
        if after is None:
            findings.clear()
            findings.update(before, **found)
        if helped:
            kept, failure = (*kept, rung), after
    directory.first_failure.unlink(missing_ok=True)
    if records:
        findings["rescues"] = records
    if failure is not None and first is not None:
        raise StepFailed(_tell_tried(first, records))


@contextmanager
def taking(rungs: Sequence[Rung]) -> Iterator[None]:
    """Capture in the given ways; those that do not concern the capture change nothing here."""
    with ExitStack() as stack:
        for rung in rungs:
            if rung in _CAPTURE_WAYS:
                stack.enter_context(_CAPTURE_WAYS[rung]())
        yield


@contextmanager
def _strictly() -> Iterator[None]:
    # torch.onnx.export has no argument for it: it goes on to strict where the other way fails, and not otherwise.
    strategies = _capture_strategies.CAPTURE_STRATEGIES
    _capture_strategies.CAPTURE_STRATEGIES = (_capture_strategies.TorchExportStrictStrategy,)
    try:
        yield
    finally:
        _capture_strategies.CAPTURE_STRATEGIES = strategies


@contextmanager
def _taking_attention_apart() -> Iterator[None]:
    """Hide attention's own translation, so that torch's decomposition step finds none and takes it apart.

    Decomposing beforehand would do, too, but it loses the assertions on sizes that `exporter.assumptions` reads.
    """
    original = vars(ONNXRegistry)["from_torchlib"]

    def without_attention(*args: Any, **kwargs: Any) -> ONNXRegistry:
        registry: ONNXRegistry = original.__func__(ONNXRegistry, *args, **kwargs)
        registry.functions.pop(_ATTENTION_OP, None)
        return registry

    ONNXRegistry.from_torchlib = staticmethod(without_attention)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@contextmanager
def _with_gradients() -> Iterator[None]:
    original = torch.export.export

    def export_with_gradients(*args: Any, **kwargs: Any) -> torch.export.ExportedProgram:
        with torch.enable_grad():
            return original(*args, **kwargs)

    torch.export.export = export_with_gradients
    try:
        yield
    finally:
        torch.export.export = original


_CAPTURE_WAYS: dict[Rung, Callable[[], AbstractContextManager[Any]]] = {
    Rung.math_attention: lambda: sdpa_kernel(SDPBackend.MATH),
    Rung.decomposed_attention: _taking_attention_apart,
    Rung.strict_capture: _strictly,
    Rung.grad_capture: _with_gradients,
}


def _try(
    attempt: Attempt,
    spec: ExportSpec,
    directory: ExportDirectory,
    rungs: Sequence[Rung],
    findings: dict[str, Any],
) -> Failure | None:
    if Rung.no_optimize in rungs:
        spec = dataclasses.replace(spec, export=dataclasses.replace(spec.export, optimize="none"))
    try:
        attempt(spec, directory, rungs, findings)
    except StepFailed as stopped:
        # The log has the whole story; the result has the one line that matters. The exception itself is let go: its
        # frames hold the captured program.
        log.exception("%s failed", stopped.failure.step, exc_info=stopped.__cause__)
        return stopped.failure
    return None


def _try_aside(
    attempt: Attempt,
    spec: ExportSpec,
    directory: ExportDirectory,
    rungs: Sequence[Rung],
    findings: dict[str, Any],
) -> Failure | None:
    """Make an attempt in a directory of its own; what it leaves replaces the first one's files if it is a rescue."""
    aside = directory.scratch
    aside.path.mkdir(exist_ok=True)
    if directory.fingerprint.exists():
        # The model file names it.
        shutil.copy(directory.fingerprint, aside.fingerprint)
    try:
        failure = _try(attempt, spec, aside, rungs, findings)
        if failure is None and spec.export.rescue:
            directory.adopt(aside)
        return failure
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)


def _choose(failure: Failure, attempt: Attempt, spec: ExportSpec, records: Sequence[RescueRecord]) -> Rung | None:
    """The next way to try, if any; without rescue only one that says whether the optimizer is at fault."""
    if not spec.export.rescue and failure.kind is not FailureKind.parity_failed:
        return None
    tried = {record.rung for record in records}
    return next((rung for rung in Rung if rung not in tried and _could_mend(rung, failure, attempt, spec)), None)


def _could_mend(rung: Rung, failure: Failure, attempt: Attempt, spec: ExportSpec) -> bool:
    kind = failure.kind
    match rung:
        case Rung.math_attention:
            return kind in _MENDED_BY_MATH and attempt.uses_attention(spec)
        case Rung.decomposed_attention:
            return kind in _TRANSLATION and attempt.uses_attention(spec)
        case Rung.strict_capture:
            return kind in _TRANSLATION
        case Rung.grad_capture:
            return kind is FailureKind.decomposition_error
        case Rung.no_optimize:
            # NaN that torch gives as well is the model's.
            is_models = kind is FailureKind.nonfinite and "(torch" in failure.cause
            return spec.export.optimize not in ("none", []) and kind in _MENDED_BY_NO_OPTIMIZE and not is_models
        case _:
            assert_never(rung)


def _progress(failure: Failure) -> tuple[int, int]:
    """How far an export came; a later failure is the greater."""
    steps = list(Step)
    return steps.index(failure.step) if failure.step is not None else -1, _CAPTURE_STAGES.get(failure.kind, 0)


def _record(rung: Rung, failure: Failure, *, helped: bool) -> RescueRecord:
    return RescueRecord(
        rung=rung, step=failure.step or Step.capture, kind=failure.kind, cause=failure.cause, helped=helped
    )


def _tell_tried(failure: Failure, records: Sequence[RescueRecord]) -> Failure:
    """The failure, with a word on what its rescue has shown."""
    if not records:
        return failure
    hint = f"{failure.hint} (tried in vain: {', '.join(record.rung for record in records)})"
    if failure.kind is FailureKind.parity_failed:
        hint = _HOLDS_WITHOUT if records[0].helped else _tell_fails_without(failure.hint)
    return dataclasses.replace(failure, hint=hint)


def _tell_fails_without(hint: str) -> str:
    # To leave out the passes has just been tried.
    return _FAILS_WITHOUT if "export.optimize=none" in hint else f"{_FAILS_WITHOUT}; {hint}"
