"""Releases as they would have been written, without any export."""

import dataclasses
from pathlib import Path

from exporter.errors import FailureKind
from exporter.evidence import DimRecord
from exporter.failures import make_failure
from exporter.result import FileRecord, Step, TensorRecord
from registry_sync.options import TrackingOptions
from registry_sync.release_manifest import Change, Manifest, Measurements, ParitySummary, ReleasedModel, Verdict

__all__ = ["NASTY", "make_judged_release", "make_manifest", "make_model"]

NASTY = "no ONNX function for aten.<script>alert('&')</script> | *x*\nand `y`"


def make_model(export_id: str = "mlp", **changes: object) -> ReleasedModel:
    model = ReleasedModel(
        id=export_id,
        model=export_id.split("-", maxsplit=1)[0],
        verdict=Verdict.accepted,
        is_new=True,
        precision="fp32",
        opset_version=20,
        files=[
            FileRecord(path="model.onnx", size_bytes=1_000_000, sha256="1" * 64),
            FileRecord(path="result.json", size_bytes=2_000, sha256="2" * 64),
        ],
        inputs=[TensorRecord(name="x", dtype="float32", shape=["batch", 8])],
        outputs=[TensorRecord(name="y", dtype="float32", shape=["batch", 4])],
        dims=[DimRecord(name="batch", min=1, max=64, example=2, proven_sizes=[1, 2, 64])],
        op_counts={"Gemm": 90, "Relu": 10},
        parity=ParitySummary(num_cases=6, max_abs_diff=1e-6, max_noise_ratio=2.0, rtol=1e-4, atol=1e-5),
        measured=Measurements(
            export_peak_bytes=100 << 20, latency_s=0.010, size_bytes=1_000_000, num_nodes=100, duration_s=3.0
        ),
        fingerprint="f" * 64,
        versions={"torch": "2.13.0", "onnx": "1.23.2"},
        source_sha256={"mlp.py": "a" * 64},
    )
    return dataclasses.replace(model, **changes)


def make_manifest(name: str = "zoo", version: str = "1", **changes: object) -> Manifest:
    manifest = Manifest(
        name=name,
        version=version,
        created_at="2026-01-01T00:00:00.000+00:00",
        previous="",
        passed=True,
        run_id="20260101-000000-abcd",
        git_commit="0" * 40,
        command=["+release=zoo"],
        exports=str(Path("exports")),
        metrics="metrics",
        removed=[],
        models=[make_model()],
        versions={"modelpress": "0.1.0", "torch": "2.13.0"},
        tracking=TrackingOptions(),
    )
    return dataclasses.replace(manifest, **changes)


def make_judged_release() -> tuple[Manifest, list[Manifest]]:
    """A release with a model of each verdict, and the one before it."""
    failure = make_failure(Step.capture, FailureKind.unsupported_op, NASTY)
    refused = make_model(
        "vit",
        verdict=Verdict.over_budget,
        baseline="1",
        changes=[
            Change(what="size", before="1.0 MiB", after="2.0 MiB", exceeded="+100.0 %, allowed are 5 %"),
            Change(what="latency", before="1 ms", after="2 ms"),
        ],
    )
    failed = make_model("bert", verdict=Verdict.failed, failure=failure, files=[], failure_history="new")
    known = dataclasses.replace(
        failed,
        id="gru",
        verdict=Verdict.known_failure,
        failure_history="known",
        issue="https://example.org/1",
        expires="2026-12-31",
    )
    fixed = make_model("gpt2", failure_history="fixed")
    new = make_manifest(
        version="2",
        previous="1",
        passed=False,
        models=[make_model(), refused, failed, known, fixed],
        removed=["clip"],
        command=["+release=zoo", "x=<b>"],
    )
    return new, [make_manifest(models=[make_model(), make_model("vit"), make_model("clip"), known, failed])]
