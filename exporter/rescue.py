"""The rescue ladder: known ways round a failure, tried one after the other before an export is given up.

Not here: what the steps do, and what counts as correct. An attempt is judged like the first, whatever it took.
"""

import dataclasses
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.onnx._internal.exporter import _capture_strategies

from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
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
# What the math backend can mend: attention itself, or a view of what another backend laid out otherwise.
_ATTENTION = re.compile(r"scaled_dot_product|attention|Cannot view a tensor|view size is not compatible", re.IGNORECASE)
_MENDED_BY_NO_OPTIMIZE = (
    FailureKind.optimize_error,
    FailureKind.invalid_onnx,
    FailureKind.runtime_error,
    FailureKind.parity_failed,
)


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


@dataclass(frozen=True)
class _Stop:
    """Where an attempt ended. It does not keep the exception, whose frames hold the captured program."""

    failure: Failure
    # The messages of the exception and of all its causes.
    text: str


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
    first = stop = _try(attempt, spec, directory, (), findings)
    kept: tuple[Rung, ...] = ()
    records: list[RescueRecord] = []
    while stop is not None and (rung := _choose(stop, spec, [record.rung for record in records])) is not None:
        log.info("trying %s, because %s", rung, stop.failure)
        recorder.attempt += 1
        found: dict[str, Any] = {}
        after = _try_aside(attempt, _change(spec, (*kept, rung)), directory, (*kept, rung), found)
        helped = after is None or _progress(after.failure) > _progress(stop.failure)
        records.append(_record(rung, stop.failure, helped=helped))
        if after is None:
            findings.clear()
            findings.update(before, **found)
        if helped:
            kept, stop = (*kept, rung), after
    if records:
        findings["rescues"] = records
    if stop is not None and first is not None:
        raise StepFailed(_tell_tried(first.failure, records))


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


_CAPTURE_WAYS: dict[Rung, Callable[[], AbstractContextManager[Any]]] = {
    Rung.math_attention: lambda: sdpa_kernel(SDPBackend.MATH),
    Rung.strict_capture: _strictly,
}


def _try(
    attempt: Attempt,
    spec: ExportSpec,
    directory: ExportDirectory,
    rungs: Sequence[Rung],
    findings: dict[str, Any],
) -> _Stop | None:
    try:
        attempt(spec, directory, rungs, findings)
    except StepFailed as stopped:
        # The log has the whole story; the result has the one line that matters.
        log.exception("%s failed", stopped.failure.step, exc_info=stopped.__cause__)
        return _Stop(stopped.failure, _read_messages(stopped))
    return None


def _try_aside(
    attempt: Attempt,
    spec: ExportSpec,
    directory: ExportDirectory,
    rungs: Sequence[Rung],
    findings: dict[str, Any],
) -> _Stop | None:
    """Make an attempt in a directory of its own, which replaces the first one's files if it passes."""
    aside = directory.scratch
    aside.path.mkdir(exist_ok=True)
    if directory.fingerprint.exists():
        # The model file names it.
        shutil.copy(directory.fingerprint, aside.fingerprint)
    try:
        stop = _try(attempt, spec, aside, rungs, findings)
        if stop is None:
            directory.adopt(aside)
        return stop
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)


def _read_messages(stopped: StepFailed) -> str:
    messages = []
    error = stopped.__cause__
    while error is not None and str(error) not in messages:
        messages.append(str(error))
        error = error.__cause__
    return "\n".join(messages)


def _choose(stop: _Stop, spec: ExportSpec, tried: Sequence[Rung]) -> Rung | None:
    if not spec.export.rescue:
        return None
    return next((rung for rung in Rung if rung not in tried and _could_mend(rung, stop, spec)), None)


def _could_mend(rung: Rung, stop: _Stop, spec: ExportSpec) -> bool:
    kind = stop.failure.kind
    match rung:
        case Rung.math_attention:
            return kind in (FailureKind.capture_error, *_TRANSLATION) and bool(_ATTENTION.search(stop.text))
        case Rung.strict_capture:
            return kind in _TRANSLATION
        case Rung.no_optimize:
            return kind in _MENDED_BY_NO_OPTIMIZE and spec.export.optimize not in ("none", [])
        case _:
            assert_never(rung)


def _change(spec: ExportSpec, rungs: Sequence[Rung]) -> ExportSpec:
    if Rung.no_optimize not in rungs:
        return spec
    return dataclasses.replace(spec, export=dataclasses.replace(spec.export, optimize="none"))


def _progress(failure: Failure) -> tuple[int, int]:
    """How far an export came; a later failure is the greater."""
    steps = list(Step)
    return steps.index(failure.step) if failure.step is not None else -1, _CAPTURE_STAGES.get(failure.kind, 0)


def _record(rung: Rung, failure: Failure, *, helped: bool) -> RescueRecord:
    return RescueRecord(
        rung=rung, step=failure.step or Step.capture, kind=failure.kind, cause=failure.cause, helped=helped
    )


def _tell_tried(failure: Failure, records: Sequence[RescueRecord]) -> Failure:
    if not records:
        return failure
    tried = ", ".join(record.rung for record in records)
    return dataclasses.replace(failure, hint=f"{failure.hint} (tried in vain: {tried})")
