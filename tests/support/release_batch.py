"""Finished batches in the working directory, made without running one, for releases to be made of."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from batch_data import make_spec

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.files import write_json
from exporter.result import Step
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.release_options import ReleaseOptions

__all__ = ["CAUSE", "finish_batch", "make_options", "publish"]

CAUSE = "no ONNX function for aten.<script>alert(1)</script> | x"


def make_options(**changes: object) -> ReleaseOptions:
    return ReleaseOptions(**{"name": "zoo"} | changes)


def publish(name: str, model: bytes = b"a graph", **findings: object) -> ExportDirectory:
    """What stands in exports/ after a good export, in the place of what stood there."""
    directory = ExportDirectory(Path("exports") / name)
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.model.write_bytes(model)
    write_json(directory.fingerprint, {"code.net.py": "a" * 64, "weights": "b" * 64})
    found = {"op_counts": {"Gemm": 100}, "num_nodes": 100, "latency_s": 0.01} | findings
    result = describe_result(make_spec(name), None, 1_767_225_600.0, files=directory.record_files(), **found)
    write_result(directory, result)
    return directory


def finish_batch(
    *passed: str, failed: tuple[str, ...] = (), up_to_date: tuple[str, ...] = (), **changes: object
) -> tuple[RunDirectory, BatchRecord]:
    """The record of a batch of these exports; those that passed, or are up to date, are published already."""
    now = datetime.now(UTC)
    run = RunDirectory(Path("runs") / f"{now:%Y%m%d-%H%M%S-%f}")
    run.results.mkdir(parents=True)
    exports = []
    for name in passed + up_to_date:
        directory = ExportDirectory(Path("exports") / name)
        result = directory.read_result()
        write_json(run.result(name), result)
        outcome = Outcome.up_to_date if name in up_to_date else Outcome.passed
        exports.append(_record(name, outcome, directory.path))
    for name in failed:
        directory = ExportDirectory(run.export_directory(name))
        directory.path.mkdir(parents=True)
        failure = make_failure(Step.capture, FailureKind.unsupported_op, CAUSE)
        result = describe_result(make_spec(name), failure, 1_767_225_600.0)
        write_json(run.result(name), result)
        exports.append(dataclasses.replace(_record(name, Outcome.failed, directory.path), failure=failure))
    record = BatchRecord(
        run_id=run.path.name,
        name="zoo",
        release="zoo",
        command=["+release=zoo"],
        started_at=now.isoformat(),
        ended_at=now.isoformat(),
        duration_s=1.0,
        exit_code=1 if failed else 0,
        git_commit="c" * 40,
        exports=exports,
        tracking=TrackingOptions(mlflow=False, dvc=False),
        versions={"modelpress": "0.1.0"},
    )
    record = dataclasses.replace(record, **changes)
    run.events.write_text("{}\n")
    run.write_summary(record)
    return run, record


def _record(name: str, outcome: Outcome, directory: Path) -> ExportRecord:
    return ExportRecord(
        id=name, model=name, outcome=outcome, directory=str(directory), opset_version=20, precision="fp32"
    )
