"""One export from start to end: runs the steps in order and writes down what happened."""

import logging
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import memory
from exporter.cuda import find_device_problem
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, FailureKind
from exporter.files import write_json, write_text
from exporter.provenance import read_provenance
from exporter.report import render_report
from exporter.repro import write_bundle
from exporter.result import ExportResult, Failure, Status, Step
from exporter.spec import Device, ExportSpec
from exporter.steps import StepFailed, StepRecorder
from exporter.torchscript import compare_with_torchscript
from exporter.validation import require_valid
from exporter.versions import library_versions

if TYPE_CHECKING:
    from torch import nn

__all__ = ["describe_result", "run_export", "write_result"]

log = logging.getLogger(__name__)


def run_export(
    spec: ExportSpec,
    directory: Path | str,
    module: "nn.Module | None" = None,
    *,
    threads: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> ExportResult:
    """Run all steps of one export, from files to files: what a worker calls, and `exporter.export` for a notebook.

    The captured program is let go as soon as it is saved. The directory gets model.onnx (and model.onnx.data),
    spec.json, result.json, report.md, report.html and graph.html.

    Args:
        spec: What to export; see `ExportSpec`.
        directory: Created if missing; files of an earlier export in it are overwritten.
        module: The model, where it already exists; it is put into eval mode. Without it the spec's
            `source._target_` is built and its weights are loaded.
        threads: Of torch and ONNX Runtime; None leaves torch's own default.
        on_step: Called with each step as it begins.

    Returns:
        The result, failed or passed: a model that does not export is no exception here.

    Raises:
        ConfigError: The spec contradicts itself, or asks for a GPU that is not there, or the directory is one that a
            batch published.
    """
    require_valid(spec, has_module=module is not None)
    if problem := find_device_problem(spec):
        raise ConfigError(problem)
    target = ExportDirectory(Path(directory))
    if target.result.exists() and target.fingerprint.exists():
        raise ConfigError(f"{target.path}: holds an export that a batch published; choose another directory")
    target.path.mkdir(parents=True, exist_ok=True)
    target.clear()
    write_json(target.spec, spec)
    # torch takes a second to import, which is nothing to who only reads specs and results, and no part of an export.
    from exporter.device import CudaMemory
    from exporter.pages.graph import write_graph
    from exporter.sequence import run_steps, set_threads

    num_threads = set_threads(threads)
    started, cpu = time.time(), _read_cpu_s()
    recorder = StepRecorder(on_step, CudaMemory() if spec.export.device is Device.cuda else None)
    baseline = memory.read_rss_bytes() or 0
    # First, while the model's code has not changed the working directory.
    findings: dict[str, Any] = {"provenance": read_provenance(target)}
    failure: Failure | None = None
    try:
        run_steps(spec, target, module, num_threads, recorder, findings)
    except StepFailed as stopped:
        failure = stopped.failure
        if stopped.__cause__ is not None:
            # The log has the whole story; the result has the one line that matters.
            log.exception("%s failed", failure.step, exc_info=stopped.__cause__)
    if failure is None and spec.export.compare_torchscript:
        findings["torchscript"] = compare_with_torchscript(target, is_built=module is None, threads=num_threads)
    if target.model.exists():
        write_graph(target, spec.id)
    findings.update(steps=recorder.records, baseline_rss_bytes=baseline, cpu_s=_read_cpu_s() - cpu)
    result = describe_result(spec, failure, started, **findings)
    write_result(target, result, is_given=module is not None)
    return result


def _read_cpu_s() -> float:
    """CPU time of this process and of its children that have ended, since they began."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _judge(failure: Failure | None) -> Status:
    if failure is None:
        return Status.passed
    return Status.unproven if failure.kind is FailureKind.parity_unsupported else Status.failed


def describe_result(spec: ExportSpec, failure: Failure | None, started: float, **findings: Any) -> ExportResult:
    """Put a result together; `started` is a time.time()."""
    ended = time.time()
    return ExportResult(
        spec=spec,
        status=_judge(failure),
        failure=failure,
        started_at=datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
        ended_at=datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds"),
        duration_s=max(0.0, ended - started),
        versions=library_versions(),
        **findings,
    )


def write_result(directory: ExportDirectory, result: ExportResult, *, is_given: bool = False) -> None:
    """Write the reports, then result.json: the result is there only when all else is.

    Args:
        directory: Of the export.
        result: Of a failed export it also makes the bundle that reproduces it.
        is_given: The module was handed over, not built from the spec's source.
    """
    if result.failure is not None:
        write_bundle(directory, result, is_given=is_given)
    directory.report.write_text(render_report(result), encoding="utf-8")
    # jinja2 is for who writes a page: not for the parent of a batch in which nothing is due.
    from exporter.pages.report_page import render_report_page

    write_text(directory.page, render_report_page(result))
    write_json(directory.result, result)
