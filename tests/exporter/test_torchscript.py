"""The comparison with TorchScript: measured alike, and no part of the verdict."""

from dataclasses import replace

import faulty_models
import pytest

from exporter import ExportDirectory, Status
from exporter.conductor import run_export
from exporter.files import write_json
from exporter.report import render_report
from exporter.result import TorchScriptRecord
from exporter.torchscript import compare_with_torchscript


def compare(tmp_path, target, **options):
    directory = ExportDirectory(tmp_path)
    write_json(directory.spec, faulty_models.make_spec(f"faulty_models.{target}"))
    return compare_with_torchscript(directory, **{"is_built": True, "threads": 1, **options})


@pytest.mark.slow
def test_a_comparison_that_was_asked_for_is_in_result_and_report(tmp_path):
    spec = faulty_models.make_spec("faulty_models.RefusesTorchScript")
    spec.export.compare_torchscript = True
    result = run_export(spec, tmp_path, threads=1)
    assert (result.status, result.failure) == (Status.passed, None)
    record = result.torchscript
    assert record.peak_bytes is None
    assert record.dynamo_peak_bytes > 0
    assert record.dynamo_duration_s > 0
    assert record.reason == "TorchScript: ValueError: no tracing here"
    assert ExportDirectory(tmp_path).read_result() == result
    assert f"Not measured: {record.reason}." in ExportDirectory(tmp_path).report.read_text()
    # The model has no weights; nothing of the two processes is left.
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["graph.html", "model.onnx", "report.html", "report.md", "result.json", "spec.json"]


@pytest.mark.slow
def test_both_exporters_are_measured(tmp_path):
    record = compare(tmp_path, "Perceptron")
    assert record.reason == ""
    assert record.dynamo_share == record.dynamo_peak_bytes / record.peak_bytes
    assert record.duration_s > 0
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


def test_a_module_that_was_handed_over_cannot_be_compared(tmp_path):
    spec = faulty_models.make_spec()
    spec.export.compare_torchscript = True
    result = run_export(spec, tmp_path, faulty_models.Perceptron(), threads=1)
    assert result.status is Status.passed
    assert result.torchscript.reason.startswith("the module was handed over")


def test_a_failed_export_is_not_compared(tmp_path):
    spec = faulty_models.make_spec()
    spec.export.compare_torchscript = True
    result = run_export(spec, tmp_path, faulty_models.Raises(), threads=1)
    assert (result.status, result.torchscript) == (Status.failed, None)


def test_a_full_disk_is_a_reason_not_a_failure(tmp_path, monkeypatch):
    def refuse(**arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exporter.torchscript.tempfile.TemporaryDirectory", refuse)
    record = compare(tmp_path, "Perceptron")
    no_space = "OSError: [Errno 28] No space left on device"
    assert record.reason == f"TorchScript: {no_space}; dynamo: {no_space}"


def test_processes_that_take_too_long_are_a_reason(tmp_path):
    record = compare(tmp_path, "Perceptron", time_limit_s=0.2)
    assert record == TorchScriptRecord(reason="TorchScript: not done after 0.2 s; dynamo: not done after 0.2 s")


def test_the_report_tells_the_share(perceptron):
    record = TorchScriptRecord(
        peak_bytes=3200 * 2**20, duration_s=31.0, dynamo_peak_bytes=96 * 2**20, dynamo_duration_s=3.5
    )
    text = render_report(replace(perceptron.result, torchscript=record))
    assert "| dynamo | 96.0 | 3.5 |" in text
    assert "| TorchScript | 3200.0 | 31 |" in text
    assert "The dynamo exporter needs 3.0% of TorchScript's peak." in text
    assert "Beside the TorchScript exporter" not in render_report(perceptron.result)
