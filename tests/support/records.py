"""Records of exports that ended in each way, and a display of a batch that nobody runs."""

import sys

from exporter.errors import FailureKind
from exporter.result import Failure, Step
from pipeline.display import Display
from pipeline.progress import BatchProgress
from pipeline.streams import duplicate
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome

PASSED = ExportRecord(
    id="mlp-opset18",
    model="mlp",
    outcome=Outcome.passed,
    directory="exports/mlp-opset18",
    reason="opset_version 20 -> 18",
    duration_s=12.34,
    opset_version=18,
    precision="fp32",
    max_abs_diff=1.5e-7,
    export_peak_bytes=150 * 2**20,
    size_bytes=3_000 * 2**10,
    num_nodes=42,
    latency_s=0.00123,
)
UP_TO_DATE = ExportRecord(
    id="bert", model="bert", outcome=Outcome.up_to_date, directory="exports/bert", opset_version=20, precision="fp32"
)
FAILED = ExportRecord(
    id="vit",
    model="vit",
    outcome=Outcome.failed,
    failure=Failure(step=Step.capture, kind=FailureKind.crashed, cause="the worker died of [bold]SIGSEGV", hint="h"),
    directory="runs/1/exports/vit",
    reason="new",
    opset_version=20,
    precision="fp32",
)
CANCELLED = ExportRecord(
    id="clip", model="clip", outcome=Outcome.cancelled, directory="d", opset_version=20, precision="fp32"
)


def make_batch(*exports: ExportRecord) -> BatchRecord:
    return BatchRecord(
        run_id="1",
        name="n",
        release=None,
        command=[],
        started_at="",
        ended_at="",
        duration_s=1.0,
        exit_code=0,
        git_commit="",
        exports=list(exports),
        tracking=TrackingOptions(),
    )


class Clock:
    """Time, as the test would have it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_display(*due: str, num_exports: int | None = None, clock: Clock | None = None) -> Display:
    """A display of a batch in which all exports took 100 s the last time."""
    clock = clock or Clock()
    progress = BatchProgress(num_exports or len(due), dict.fromkeys(due, 100.0), 2, 0.0)
    return Display(progress, duplicate(sys.stdout), duplicate(sys.stderr), clock)
