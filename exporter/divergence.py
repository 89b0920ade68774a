"""Where it went wrong: on a parity failure, the first value at which torch and ONNX Runtime part.

This module says what was found; `exporter.bisection` compares the values. The search is an explanation of a failure
and never a failure of its own: what goes wrong in it is said in the finding.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.arguments import arguments_of
from exporter.arrays import run_session, to_array
from exporter.bisection import PARTED, Bisection, Comparison
from exporter.cases import Case
from exporter.comparison import compare
from exporter.device import choose_providers
from exporter.errors import FailureKind, StepError
from exporter.evidence import CaseRecord, Divergence, Finding
from exporter.failures import one_line
from exporter.inputs import make_inputs
from exporter.parity import run_torch, worst_miss
from exporter.sessions import make_options
from exporter.spec import ExportSpec
from exporter.trace import Trace, locate_module, locate_source

__all__ = ["DivergenceSearch"]

log = logging.getLogger(__name__)

_SEARCHED = (FailureKind.parity_failed, FailureKind.nonfinite, FailureKind.interface_mismatch)
_MAX_SUSPECTS = 8
# Of an output's largest element: 1e-3 of it in float32.
_MOST_ROUNDINGS = 1e4

_HINTS = {
    Finding.capture: "a value or a branch of forward was fixed at capture: make it an input, or a tensor operation",
    Finding.rounding: "every operator agrees to within rounding: raise precision.rtol and atol if that is good enough",
    Finding.runtime: "the file is right; report it to ONNX Runtime, and run it with graph optimization off",
}


@dataclass(frozen=True)
class DivergenceSearch:
    """What a search needs of an export.

    Args:
        trace: Of the captured program.
        spec: Of the export.
        module: The original.
        model: The saved file.
        threads: Of an ONNX Runtime operator.
    """

    trace: Trace
    spec: ExportSpec
    module: nn.Module
    model: Path
    threads: int

    @contextmanager
    def explains(self, cases: list[Case], records: list[CaseRecord], findings: dict[str, Any]) -> Iterator[None]:
        """Where the body fails for what a case gave, search that case and add the place to the cause.

        Args:
            cases: All.
            records: Of the cases that were run; the body adds to them.
            findings: Gets the `divergence`.

        Raises:
            StepError: The body's own, in more words.
        """
        try:
            yield
        except StepError as error:
            if error.kind not in _SEARCHED:
                raise
            missed = worst_miss(records)
            # A case that stopped halfway has no record.
            name = missed[0].name if missed else cases[min(len(records), len(cases) - 1)].name
            case = next(case for case in cases if case.name == name)
            found = self.find(
                case,
                seeks_nonfinite=error.kind is FailureKind.nonfinite,
                is_about_form=error.kind is FailureKind.interface_mismatch,
            )
            findings["divergence"] = found
            hint = error.hint or _HINTS.get(found.finding, "")
            # A detail, not the cause: where they part says more of a failure, and does not make it another one.
            raise StepError(error.kind, error.cause, hint, error.ops, detail=found.summary) from error

    def find(self, case: Case, *, seeks_nonfinite: bool = False, is_about_form: bool = False) -> Divergence:
        """Search on one case; what goes wrong is in the finding, no `Exception` comes out.

        Args:
            case: One that parity failed in.
            seeks_nonfinite: Say where NaN or infinity begins, if torch has it too.
            is_about_form: The number of outputs or a shape was wrong, which the values need not be.
        """
        try:
            return self._find(case, seeks_nonfinite=seeks_nonfinite, is_about_form=is_about_form)
        except Exception as error:
            log.exception("the search for the divergence failed")
            return _unknown(case, f"{type(error).__name__}: {error}")

    def _find(self, case: Case, *, seeks_nonfinite: bool, is_about_form: bool) -> Divergence:
        inputs = make_inputs(self.spec.model, case, self.spec.export.device)
        providers = choose_providers(self.spec.export.device)
        feeds = {name: to_array(tensor) for name, tensor in inputs.items()}
        bisection = Bisection(self.trace, self.module, self.model, inputs, feeds, self.threads, providers)
        captured = [to_array(output) for output in bisection.run_program()]
        wanted = run_torch(self.module, arguments_of(self.module, self.spec.model), inputs, case)
        actual = self._run_file(feeds, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
        if not _agree(wanted, captured, self.spec) or self._shares_the_error(wanted, captured, actual):
            return Divergence(
                finding=Finding.capture,
                summary="the captured program differs from forward: something was fixed at capture",
                case=case.name,
                max_abs_diff=_largest_difference(wanted, captured),
            )
        if seeks_nonfinite and bisection.first_nonfinite and not all(np.isfinite(one).all() for one in wanted):
            return _describe_nonfinite(*bisection.first_nonfinite, case)
        found = bisection.search()
        before = bisection.largest_before(found)
        if found is not None:
            divergence = _describe(found, before, self.model, case, bisection.agreed)
        elif not _agree(wanted, actual, self.spec) and _agree(wanted, self._run_plainly(feeds), self.spec):
            summary = "without ONNX Runtime's own optimization on loading the file is right"
            divergence = Divergence(finding=Finding.runtime, summary=summary, case=case.name)
        elif is_about_form:
            summary = "the values are the same: what the graph says of its outputs is wrong"
            divergence = Divergence(finding=Finding.unknown, summary=summary, case=case.name)
        elif before is not None and _is_beyond_rounding(wanted, actual):
            summary = "all values that can be compared agree; the fault is behind them, or in what the passes made new"
            divergence = Divergence(finding=Finding.unknown, summary=summary, case=case.name)
        elif before is not None:
            divergence = _describe_rounding(before, self.model, case)
        else:
            return _unknown(case, "no value of the graph can be compared")
        return replace(divergence, num_compared=len(bisection.compared), num_sessions=bisection.num_sessions)

    def _shares_the_error(
        self, wanted: list[NDArray[Any]], captured: list[NDArray[Any]], actual: list[NDArray[Any]]
    ) -> bool:
        """Whether the captured program is off by what ONNX Runtime is off by, where the tolerance lets both through."""
        if not _agree(wanted, actual, self.spec):
            return False
        for one, two, three in zip(wanted, captured, actual, strict=True):
            ours, theirs = (_largest_difference([one], [other]) or 0.0 for other in (two, three))
            largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0)) if one.dtype.kind == "f" else 0.0
            # Half, since ONNX Runtime rounds beside.
            if largest and ours > PARTED * np.finfo(one.dtype).eps * largest and ours > theirs / 2:
                return True
        return False

    def _run_plainly(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return self._run_file(feeds, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)

    def _run_file(self, feeds: dict[str, NDArray[Any]], level: ort.GraphOptimizationLevel) -> list[NDArray[Any]]:
        """The outputs of the file as it stands."""
        options = make_options(self.threads)
        options.graph_optimization_level = level
        session = ort.InferenceSession(
            str(self.model), options, providers=list(choose_providers(self.spec.export.device))
        )
        return list(run_session(session, feeds).values())


def _describe_nonfinite(node: torch.fx.Node, what: str, case: Case) -> Divergence:
    place = Divergence(
        finding=Finding.nonfinite,
        summary="",
        case=case.name,
        node=node.name,
        op_type=str(node.target),
        module=locate_module(node),
        source=locate_source(node),
        expected=what,
    )
    return replace(place, summary=f"torch itself first has {what} at {_place(place)}")


def _describe_rounding(largest: Comparison, model: Path, case: Case) -> Divergence:
    place = _describe(largest, None, model, case, set())
    summary = (
        f"no operator parts by more than rounding; the most is {largest.roundings:.1f} roundings at {_place(place)}"
    )
    return replace(place, finding=Finding.rounding, summary=summary, suspects=[])


def _describe(found: Comparison, before: Comparison | None, model: Path, case: Case, agreed: set[str]) -> Divergence:
    graph = onnx.load(model, load_external_data=False).graph
    producers = {name: node for node in graph.node for name in node.output}
    node = producers[found.value]
    place = Divergence(
        finding=Finding.value,
        summary="",
        case=case.name,
        value=found.value,
        node=node.name,
        op_type=node.op_type,
        module=locate_module(found.node),
        source=locate_source(found.node),
        suspects=_find_suspects(node, producers, agreed),
        expected=found.expected,
        actual=found.actual,
        max_abs_diff=found.max_abs_diff,
        roundings=found.roundings if np.isfinite(found.roundings) else None,
        roundings_before=None if before is None else before.roundings,
    )
    return replace(place, summary=f"they part first at {_place(place)}")


def _find_suspects(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], agreed: set[str]) -> list[str]:
    suspects: list[str] = []
    pending = list(node.input)
    seen = set(agreed)
    while pending:
        name = pending.pop(0)
        producer = producers.get(name)
        if producer is None or name in seen:
            continue
        seen.update(producer.output)
        suspects.append(f"{producer.name} ({producer.op_type})")
        pending.extend(producer.input)
    rest = len(suspects) - _MAX_SUSPECTS
    return suspects if rest <= 0 else [*suspects[:_MAX_SUSPECTS], f"and {rest} more"]


def _place(found: Divergence) -> str:
    file = found.source.partition(": ")[0]
    inside = f" of {found.module}" if found.module else ""
    return f"{found.node} ({found.op_type}){inside}" + (f", {file}" if file else "")


def _agree(wanted: list[NDArray[Any]], found: list[NDArray[Any]], spec: ExportSpec) -> bool:
    return len(wanted) == len(found) and all(
        compare("", one, two, spec.precision, allow_nonfinite=True).passed
        for one, two in zip(wanted, found, strict=True)
    )


def _largest_difference(wanted: list[NDArray[Any]], found: list[NDArray[Any]]) -> float | None:
    pairs = [(one, two) for one, two in zip(wanted, found, strict=False) if one.shape == two.shape and one.size]
    largest = max((float(np.abs(one.astype(float) - two.astype(float)).max()) for one, two in pairs), default=None)
    return largest if largest is not None and np.isfinite(largest) else None


def _is_beyond_rounding(wanted: list[NDArray[Any]], actual: list[NDArray[Any]]) -> bool:
    """Whether an output is further off than rounding that adds up over a deep model comes to."""
    for one, two in zip(wanted, actual, strict=False):
        if one.shape == two.shape and one.dtype.kind == "f" and one.size:
            largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
            difference = _largest_difference([one], [two])
            if difference is None or difference > _MOST_ROUNDINGS * np.finfo(one.dtype).eps * largest:
                return True
    return False


def _unknown(case: Case, reason: str) -> Divergence:
    summary = f"the search for where they part failed: {one_line(reason)}"
    return Divergence(finding=Finding.unknown, summary=summary, case=case.name)
