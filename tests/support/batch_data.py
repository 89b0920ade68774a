"""A batch on disk, made without running one: one export that passed and one that failed."""

from pathlib import Path

from exporter import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.files import write_json
from exporter.result import RescueRecord, Rung, Step
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory


def make_spec(name: str) -> ExportSpec:
    return ExportSpec(
        id=name,
        model=ModelSpec(name=name, source={"_target_": "exporter.zoo.mlp.MLP"}, inputs={"tensor_x": Input([2, 8])}),
        precision=Precision(PrecisionName.fp32, 1e-4, 1e-5),
    )


def make_run(root: Path, *, model: bytes = b"onnx") -> RunDirectory:
    """runs/<id>/ and exports/ under a root, which has to be the working directory for its paths to hold."""
    run = RunDirectory(Path("runs/20260101-000000-abcd"))
    (root / run.results).mkdir(parents=True)
    failure = make_failure(Step.parity, FailureKind.parity_failed, "3 of 4 elements", "try none")
    rescue = RescueRecord(
        rung=Rung.no_optimize, step=Step.optimize, kind=FailureKind.optimize_error, cause="planted", helped=True
    )
    exports = []
    for name, outcome, place in (("good", Outcome.passed, "exports/good"), ("bad", Outcome.failed, "bad")):
        directory = ExportDirectory(root / place)
        directory.path.mkdir(parents=True)
        directory.model.write_bytes(model)
        spec = make_spec(name)
        write_json(directory.fingerprint, {"spec.id": name})
        reason = failure if outcome is Outcome.failed else None
        result = describe_result(spec, reason, 1_767_225_600.0, files=directory.record_files(), rescues=[rescue])
        write_result(directory, result)
        write_json(root / run.result(name), result)
        exports.append(
            ExportRecord(
                id=name,
                model=name,
                outcome=outcome,
                failure=reason,
                directory=place,
                opset_version=20,
                precision="fp32",
            )
        )
    record = BatchRecord(
        run_id=run.path.name,
        name="good and 1 more",
        release=None,
        command=[],
        started_at="2026-01-01T00:00:00.000+00:00",
        ended_at="2026-01-01T00:01:00.000+00:00",
        duration_s=60.0,
        exit_code=1,
        git_commit="",
        exports=exports,
        tracking=TrackingOptions(),
    )
    (root / run.events).write_text("{}\n")
    RunDirectory(root / run.path).write_summary(record)
    return run
