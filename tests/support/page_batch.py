"""A batch on disk for a reviewer to look at: exports that passed, one that failed, and the last batch before it."""

import json
from dataclasses import replace
from pathlib import Path

from report_data import make_failed_result, make_result

from exporter.conductor import write_result
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.result import ExportResult, Status
from pipeline.ledger import record_result
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, RunDirectory

RUN = "20260102-000000-abcd"


def make_page_run(root: Path) -> RunDirectory:
    """runs/ and exports/ under a root, which has to be the working directory for its paths to hold."""
    failed = make_failed_result("vit")
    hostile = make_failed_result("clip", failure=replace(failed.failure, cause="<img src=http://example.org/x>\u202e"))
    passed = make_result("bert")
    slower = make_result("bert-opset21", latency_s=0.00246)
    slower.spec.model.name = "bert"
    results = [passed, slower, failed, hostile]
    before = [replace(result, latency_s=0.00123, num_nodes=40) for result in results]
    _write_run(root, "20260101-000000-abcd", before)
    return _write_run(root, RUN, results)


def _write_run(root: Path, run_id: str, results: list[ExportResult]) -> RunDirectory:
    run = RunDirectory(Path("runs") / run_id)
    (root / run.results).mkdir(parents=True)
    (root / run.events).write_text("{}\n")
    exports = [_write_export(root, run, result) for result in results]
    record = BatchRecord(
        run_id=run_id,
        name="zoo",
        release="zoo",
        command=["+release=zoo"],
        started_at="2026-01-02T00:00:00.000+00:00",
        ended_at="2026-01-02T00:01:00.000+00:00",
        duration_s=60.0,
        exit_code=1,
        git_commit="c0ffee",
        exports=exports,
        tracking=TrackingOptions(),
        versions={"torch": "2.13.0"},
    )
    RunDirectory(root / run.path).write_summary(record)
    return run


def _write_export(root: Path, run: RunDirectory, result: ExportResult) -> ExportRecord:
    is_good = result.status is Status.passed
    place = Path("exports") / result.id if is_good else run.export_directory(result.id)
    directory = ExportDirectory(root / place)
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.model.write_bytes(b"onnx")
    write_json(directory.spec, result.spec)
    write_json(directory.fingerprint, {"spec.id": json.dumps(result.id)})
    result = replace(result, files=directory.record_files() if is_good else [])
    write_result(directory, result)
    write_json(root / run.result(result.id), result)
    return record_result(result, "new", place, 1)
