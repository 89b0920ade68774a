"""Results for pages, put together without an export."""

from dataclasses import replace

from exporter.errors import FailureKind
from exporter.evidence import (
    CaseRecord,
    DimRecord,
    Divergence,
    Finding,
    NoiseRecord,
    NoiseVerdict,
    OutputParity,
    RoundingError,
    WeightsMode,
    WeightsRecord,
)
from exporter.failures import make_failure
from exporter.result import (
    ExportResult,
    FileRecord,
    PassRecord,
    Provenance,
    RescueRecord,
    Rung,
    Status,
    Step,
    StepRecord,
    TensorRecord,
    TorchScriptRecord,
)
from exporter.spec import Dim, ExportSpec, Input, ModelSpec

# What a model, a path or a library may say.
HOSTILE = (
    "<script>window.hit = 1</script>",
    "\"><img src=http://example.org/x onerror='window.hit = 1'>",
    "</style></title></svg><b>bold</b>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;&amp;",
    "\u202eexe.fdp\u2066",
    "שלום עולם",
    "مرحبا",
    "model 🤖 👩‍👩‍👧",
    "\ud800\x00\x1b[31m",
    "x" * 5000,
    "",
)


def make_output(name: str = "logits", *, share: float | None = 0.05, passed: bool = True, **changes: object):
    error = RoundingError(rms=1e-8, max=1e-7, drift=1e-9, in_tolerances=0.02)
    noise = NoiseRecord(
        num_elements=10, scale=1.0, peak=2.0, torch=error, ort=error, ratio=1.5, verdict=NoiseVerdict.right
    )
    output = OutputParity(
        output=name,
        passed=passed,
        num_elements=1234,
        num_mismatched=0 if passed else 3,
        max_abs_diff=1.5e-7,
        max_rel_diff=2.5e-6,
        rel_l2=3.5e-8,
        in_tolerances=share,
        reason="" if passed else "3 of 1234 elements out of tolerance",
        noise=noise,
    )
    return replace(output, **changes)


def make_case(name: str = "example", *outputs: OutputParity) -> CaseRecord:
    return CaseRecord(name=name, sizes={"batch": 4}, seed=0, outputs=list(outputs) or [make_output()])


def make_result(name: str = "bert", **changes: object) -> ExportResult:
    """One that passed, with something in every field."""
    mebibyte = 2**20
    result = ExportResult(
        spec=ExportSpec(
            id=name,
            model=ModelSpec(
                name=name,
                source={"_target_": "a.B"},
                inputs={"x": Input(["batch", 8])},
                dims={"batch": Dim(min=1, max=64, example=4)},
                constants={"mode": "fast"},
            ),
        ),
        status=Status.passed,
        started_at="2026-01-01T00:00:00.000+00:00",
        ended_at="2026-01-01T00:00:05.000+00:00",
        duration_s=5.25,
        cpu_s=4.5,
        baseline_rss_bytes=300 * mebibyte,
        steps=[
            StepRecord(
                step=step,
                duration_s=0.5,
                peak_rss_bytes=(320 + 10 * place) * mebibyte,
                start_rss_bytes=310 * mebibyte,
                start_anon_bytes=0,
                peak_anon_bytes=place * mebibyte,
            )
            for place, step in enumerate(Step)
        ],
        inputs=[TensorRecord(name="x", dtype="float32", shape=["batch", 8])],
        outputs=[TensorRecord(name="logits", dtype="float32", shape=["batch", 2])],
        dims=[DimRecord(name="batch", min=1, max=64, example=4, proven_sizes=[1, 2, 5, 64])],
        cases=[make_case("example", make_output(share=0.05)), make_case("maximum", make_output(share=0.25))],
        files=[FileRecord(path="model.onnx", size_bytes=3 * mebibyte, sha256="ab" * 32)],
        weights=WeightsRecord(mode=WeightsMode.seeded),
        capture_strategy="TorchExportStrictStrategy",
        num_parameters=123_456,
        num_nodes=42,
        num_nodes_captured=99,
        op_counts={"Gemm": 30, "Relu": 12},
        passes=[
            PassRecord(
                name="default",
                num_nodes_before=99,
                num_nodes_after=42,
                num_initializers_before=7,
                num_initializers_after=7,
                op_changes={"Identity": -57},
            )
        ],
        latency_s=0.00123,
        ort_providers=["CPUExecutionProvider"],
        torchscript=TorchScriptRecord(
            peak_bytes=mebibyte, duration_s=1.0, dynamo_peak_bytes=mebibyte // 2, dynamo_duration_s=2.0
        ),
        versions={"torch": "2.13.0", "onnxruntime": "1.32.0"},
        provenance=Provenance(git_commit="c0ffee", git_dirty=True, fingerprint="f1" * 32),
    )
    return replace(result, **changes)


def make_failed_result(name: str = "vit", **changes: object) -> ExportResult:
    failure = make_failure(Step.parity, FailureKind.parity_failed, "output 'logits' is off", "try none", ["Gemm"])
    divergence = Divergence(
        finding=Finding.value,
        summary="parts at node_7",
        case="example",
        value="v7",
        node="node_7",
        op_type="Gemm",
        module="layers.0",
        source="model.py:7: return x",
        expected="1.0",
        actual="2.0",
        max_abs_diff=1.0,
        num_compared=7,
        num_sessions=2,
    )
    rescue = RescueRecord(
        rung=Rung.no_optimize, step=Step.parity, kind=FailureKind.parity_failed, cause="off", helped=False
    )
    cases = [make_case("example", make_output(share=12.0, passed=False)), make_case("minimum")]
    values = {"failure": failure, "divergence": divergence, "rescues": [rescue], "cases": cases, "files": []}
    return make_result(name, **{"status": Status.failed, **values, **changes})


def make_hostile_result(text: str) -> ExportResult:
    """A failed one in which every name and every message is a given text."""
    result = make_failed_result(text)
    model = replace(result.spec.model, name=text, constants={text: text})
    assert result.failure is not None
    return replace(
        result,
        spec=replace(result.spec, model=model),
        failure=replace(result.failure, cause=text, hint=text, ops=[text], fingerprint=text),
        divergence=replace(
            result.divergence,
            **dict.fromkeys(("summary", "case", "value", "node", "op_type", "module", "source"), text),
        ),
        rescues=[replace(result.rescues[0], cause=text)],
        inputs=[TensorRecord(name=text, dtype=text, shape=[text, 8])],
        outputs=[TensorRecord(name=text, dtype=text, shape=[text])],
        dims=[replace(result.dims[0], name=text)],
        cases=[
            CaseRecord(
                name=text,
                sizes={text: 1},
                seed=0,
                outputs=[make_output(text, share=None, passed=False, reason=text), make_output(f"{text}2")],
                noise_reason=text,
            )
        ],
        files=[FileRecord(path=text, size_bytes=1, sha256=text)],
        weights=WeightsRecord(mode=WeightsMode.loaded, reason=text),
        capture_strategy=text,
        op_counts={text: 1},
        passes=[replace(result.passes[0], name=text, op_changes={text: 1})],
        torchscript=TorchScriptRecord(reason=text),
        ort_providers=[text],
        started_at=text,
        versions={text: text},
        provenance=Provenance(git_commit=text, git_dirty=True, fingerprint=text),
    )
