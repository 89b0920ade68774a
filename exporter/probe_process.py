"""The process that `exporter.probe` starts: builds a spec's model, exports it in one way, says what that took.

`python -m exporter.probe_process DIRECTORY WAY FOLDER THREADS PARENT`, for our own use; it writes to FOLDER alone.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from exporter import build, capture, memory, optimize, save, sequence
from exporter.arguments import arguments_of
from exporter.cases import choose_cases
from exporter.directory import ExportDirectory
from exporter.failures import one_line
from exporter.files import write_json
from exporter.inputs import make_inputs
from exporter.lifeline import die_with_parent
from exporter.probe import RECORD_FILE, ProbeRecord, Way
from exporter.spec import ExportSpec
from exporter.targets import collect_targets

__all__ = ["main"]

# The highest that the TorchScript exporter knows.
_TORCHSCRIPT_MAX_OPSET = 20

Example = dict[str, torch.Tensor]


def main(directory: str, way: str, folder: str, threads: str, parent: str) -> None:
    """Measure, write the record, and end."""
    die_with_parent(int(parent))
    # The whole of an export's imports, ONNX Runtime among them, so that none falls into what is measured.
    sequence.set_threads(int(threads))
    spec = ExportDirectory(Path(directory)).read_spec()
    try:
        record = _measure(spec, _WAYS[Way(way)], Path(folder))
    except Exception as error:  # noqa: BLE001  (whatever the model or the exporter raises is the answer)
        record = ProbeRecord(reason=one_line(f"{type(error).__name__}: {error}"))
    write_json(Path(folder) / RECORD_FILE, record)
    # Skips a second of teardown.
    os._exit(0)


def _measure(
    spec: ExportSpec, act: Callable[[nn.Module, ExportSpec, Example, Path], None], folder: Path
) -> ProbeRecord:
    # The code that a source names may take more memory than a small model.
    for target in collect_targets(spec.model.source):
        build.locate(target)
    baseline = memory.read_usage()
    module = build.build_module(spec.model)
    example = make_inputs(spec.model, choose_cases(spec)[0])
    if not memory.reset_peak_rss() or baseline is None:
        raise OSError("this kernel does not tell the peak of a process's memory")
    start = time.monotonic()
    act(module, spec, example, folder)
    return ProbeRecord(
        baseline_rss_bytes=baseline.rss_bytes,
        baseline_anon_bytes=baseline.anon_bytes,
        peak_rss_bytes=memory.read_peak_rss_bytes() or 0,
        started_at_s=start,
        duration_s=time.monotonic() - start,
    )


def _export_by_dynamo(module: nn.Module, spec: ExportSpec, example: Example, folder: Path) -> None:
    captured = capture.capture(module, spec, example, folder / "report.md")
    list(optimize.optimize(captured.program, spec, folder / "temporary"))
    save.save(captured, ExportDirectory(folder), spec.model)


def _export_by_torchscript(module: nn.Module, spec: ExportSpec, example: Example, folder: Path) -> None:
    call = arguments_of(module, spec.model).arrange(example)
    with torch.no_grad(), warnings.catch_warnings():
        # It is deprecated, and its tracer warns wherever Python looks at a tensor.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            call.args,
            str(folder / "torchscript.onnx"),
            kwargs=call.kwargs,
            dynamo=False,
            opset_version=min(spec.export.opset_version, _TORCHSCRIPT_MAX_OPSET),
        )


def _run_eagerly(module: nn.Module, spec: ExportSpec, example: Example, folder: Path) -> None:  # noqa: ARG001
    call = arguments_of(module, spec.model).arrange(example)
    with torch.inference_mode():
        module(*call.args, **call.kwargs)


_WAYS = {
    Way.dynamo: _export_by_dynamo,
    Way.torchscript: _export_by_torchscript,
    Way.eager: _run_eagerly,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
