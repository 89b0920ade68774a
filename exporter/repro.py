"""The bundle of a failed export: its spec, torch's report, and a script that reproduces it without modelpress.

Imports the standard library alone: the parent writes bundles of workers that crashed, and loads no torch.
"""

import logging
import re
import shutil
import textwrap
from collections.abc import Iterator

from exporter.cases import Case, choose_cases
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.evidence import CaseRecord
from exporter.repro_checks import SIZE_KINDS, UNPACK, may_return_dataclass, render_checks
from exporter.repro_inputs import render_dynamic_shapes, render_inputs
from exporter.repro_model import render_build, render_export, unknown_passes
from exporter.repro_noise import is_noise_judged
from exporter.repro_script import assemble
from exporter.result import ExportResult, Step
from exporter.spec import Device, PrecisionName

__all__ = ["render_script", "write_bundle"]

log = logging.getLogger(__name__)

_WIDTH = 88
_SIZES = re.compile(r"\((\w+=\d+(?:, \w+=\d+)*)\)")

# What of a failure the script does not look for. It does what the export did all the same, and may fail so.
_NOT_CHECKED = {
    FailureKind.signature_mismatch: "the comparison of the config with the arguments of forward",
    FailureKind.weights_error: "the comparison of the index of the weights with its shards",
    FailureKind.table_error: "the check of what export.custom_translation_table returns",
    FailureKind.interface_mismatch: "the comparison of names, dtypes and shapes in the graph with those in the config",
    FailureKind.measure_error: "the measurement of the latency",
    FailureKind.storage_error: "the disk that the export was written to",
    FailureKind.out_of_memory: "the limit on memory that the export ran under",
    FailureKind.killed: "what killed the process",
    FailureKind.timeout: "the limit on time that the export ran under",
    FailureKind.crashed: "the process that the export ran in",
    FailureKind.exited_early: "the process that the export ran in",
    FailureKind.corrupt_output: "the files of the export",
    FailureKind.internal_error: "modelpress itself",
}


def write_bundle(directory: ExportDirectory, result: ExportResult, *, is_given: bool = False) -> None:
    """Write repro/ beside the result of a failed export.

    Args:
        directory: Of the export; has spec.json.
        result: With a failure.
        is_given: The module was handed over, not built from the spec's source.
    """
    bundle = directory.repro
    bundle.mkdir(exist_ok=True)
    for path in (directory.spec, directory.torch_report):
        if path.exists():
            shutil.copyfile(path, bundle / path.name)
    try:
        text = render_script(result, is_given=is_given)
    except Exception:
        # The export's failure is what counts; a script for it is an extra.
        log.exception("repro.py could not be written")
        return
    (bundle / "repro.py").write_text(text, encoding="utf-8")


def render_script(result: ExportResult, *, is_given: bool = False) -> str:
    """The text of repro.py."""
    spec = result.spec
    assert result.failure is not None
    example, record, case = choose_cases(spec)[0], _failed_case(result), _failing_case(result)
    unpacks = may_return_dataclass(result)
    blocks = [
        *render_build(spec.model, is_given=is_given),
        *render_inputs(spec.model),
        *([UNPACK] if unpacks else []),
        *render_export(spec, separate=_needs_separate_outputs(result)),
        *render_checks(result, record),
    ]
    return assemble(
        blocks,
        left_out="\n".join(_wrap("left out", "; ".join(_find_left_out(result)))),
        unpacks=unpacks,
        checks_failure=result.failure.step is Step.parity or result.failure.kind in SIZE_KINDS,
        story="\n".join(_tell_story(result, record)),
        opset=str(spec.export.opset_version),
        rtol=repr(spec.precision.rtol),
        atol=repr(spec.precision.atol),
        example=repr((dict(example.sizes), example.seed)),
        case=repr((dict(case.sizes), case.seed)),
        dynamic_shapes=render_dynamic_shapes(spec.model),
    )


def _tell_story(result: ExportResult, record: CaseRecord | None) -> Iterator[str]:
    failure = result.failure
    assert failure is not None
    facts = {
        "export": result.id,
        "step": str(failure.step or "before the first"),
        "kind": failure.kind.value,
        "cause": failure.cause,
        "to do": failure.hint,
    }
    if record is not None and is_noise_judged(result, record):
        facts["judge"] = "the noise floor: PyTorch's own rounding error, not rtol and atol alone, decided on an output"
    if result.rescues:
        ways = ", ".join(rescue.rung for rescue in result.rescues)
        facts["tried"] = f"{ways}: ways round the failure that are not in this script, which is the first attempt"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in result.versions.items() if version)
    for name, text in facts.items():
        yield from _wrap(name, text) or [f"#   {name}"]


def _wrap(name: str, text: str) -> list[str]:
    lines = textwrap.wrap(" ".join(text.split()), _WIDTH)
    return [f"#   {name if not index else '':9} {line}" for index, line in enumerate(lines)]


def _find_left_out(result: ExportResult) -> Iterator[str]:
    """What of the export is not in the script, and may be what the failure needs to show."""
    spec, failure = result.spec, result.failure
    assert failure is not None
    is_count = failure.step is Step.parity and failure.cause.startswith("forward returns")
    if failure.kind in _NOT_CHECKED and not is_count:
        yield _NOT_CHECKED[failure.kind]
    if failure.kind is FailureKind.dim_narrowed and "takes for granted" in failure.cause:
        yield "inputs as large as it would take to break what the captured graph takes for granted"
    if failure.step is Step.parity and failure.cause.startswith("model.ort.onnx"):
        yield "model.ort.onnx, which ONNX Runtime writes for export.ort_optimized"
    if failure.step in (Step.build, Step.capture):
        return
    if spec.export.device is not Device.cpu:
        yield f"the GPU: all of this runs on the CPU, the export ran on {spec.export.device.value}"
    names = unknown_passes(spec)
    if names:
        yield f"the passes {', '.join(names)}"
    if spec.precision.name is not PrecisionName.fp32:
        yield f"the conversion to {spec.precision.name.value}"
    if failure.step is Step.parity and _stopped_case(result) is None:
        yield "the case that failed, whose sizes are not on record; it is the example that runs"


def _needs_separate_outputs(result: ExportResult) -> bool:
    if result.op_counts:
        return "Identity" in result.op_counts
    return result.failure is not None and result.failure.step not in (Step.build, Step.capture)


def _failed_case(result: ExportResult) -> CaseRecord | None:
    """The case on record that failed, the one that was searched where there are several."""
    failed = [case for case in result.cases if not case.passed]
    wanted = result.divergence.case if result.divergence is not None else None
    return next((case for case in failed if case.name == wanted), failed[0] if failed else None)


def _failing_case(result: ExportResult) -> Case:
    """The case that failed; the example where it failed before any case."""
    return _stopped_case(result) or choose_cases(result.spec)[0]


def _stopped_case(result: ExportResult) -> Case | None:
    """The case that parity stopped in halfway: the one after those on record; None where that is not known."""
    record = _failed_case(result)
    if record is not None:
        return Case(record.name, record.sizes, record.seed)
    failure, number = result.failure, len(result.cases)
    assert failure is not None
    cases = choose_cases(result.spec)
    if failure.step is not Step.parity:
        return None
    if number < len(cases) or failure.cause.startswith("model.ort.onnx"):
        return cases[number if number < len(cases) else 0]
    # A case that was made to break an assumption is known from the cause alone.
    found = _SIZES.search(failure.cause)
    sizes = {name: int(size) for name, size in (part.split("=") for part in found[1].split(", "))} if found else {}
    return Case("stopped", sizes, result.spec.model.seed + number) if sizes.keys() == cases[0].sizes.keys() else None
