"""On a machine with an NVIDIA GPU: exports with the module on it. Skipped elsewhere."""

import faulty_models
import onnx
import pytest

from exporter import Device, ExportDirectory, FailureKind, Input, export, sequence
from exporter.build import build_module
from exporter.cuda import why_no_cuda
from exporter.evidence import Finding

NO_GPU = why_no_cuda()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)]

SEQUENCE = {"x": Input(shape=["n", 5, 8])}


def make_spec(model="Perceptron", inputs=None, device=Device.cuda):
    spec = faulty_models.make_spec(f"faulty_models.{model}", inputs)
    spec.export.device = device
    return spec


@pytest.mark.parametrize(
    ("model", "inputs"),
    [("Perceptron", None), ("Encodes", SEQUENCE), ("Ties", None), ("Doubles", None), ("WritesToItsInput", None)],
)
def test_a_model_passes_on_the_gpu(tmp_path, model, inputs):
    result = export(make_spec(model, inputs), tmp_path, threads=1)
    assert result.failure is None
    assert result.cuda_peak_bytes > 0
    assert all(record.cuda_peak_bytes is not None for record in result.steps)
    assert result.ort_providers[-1] == "CPUExecutionProvider"
    # Every output was held against the float64 run, too.
    assert all(output.noise is not None for case in result.cases for output in case.outputs)
    assert not any(case.noise_reason for case in result.cases)


def test_the_saved_weights_are_those_of_an_export_on_the_cpu(tmp_path):
    for device in Device:
        assert export(make_spec(device=device), tmp_path / device, threads=1).failure is None
    one, other = (ExportDirectory(tmp_path / device).model_data.read_bytes() for device in Device)
    assert one == other


def test_a_fault_in_the_file_is_found_at_its_node(tmp_path, monkeypatch):
    save = sequence.save.save

    def save_and_tamper(captured, directory, model):
        save(captured, directory, model)
        graph = onnx.load(directory.model, load_external_data=False)
        next(node for node in graph.graph.node if node.op_type == "Relu").op_type = "Abs"
        onnx.save(graph, directory.model)

    monkeypatch.setattr(sequence.save, "save", save_and_tamper)
    spec = make_spec()
    spec.export.rescue = False
    result = export(spec, tmp_path, threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert result.divergence.finding is Finding.value
    assert result.divergence.op_type == "Abs"


def test_a_given_module_is_moved_and_one_on_the_gpu_is_not_taken_for_the_cpu(tmp_path):
    module = build_module(make_spec().model)
    assert export(make_spec(), tmp_path / "cuda", module, threads=1).failure is None
    assert next(module.parameters()).is_cuda
    failure = export(make_spec(device=Device.cpu), tmp_path / "cpu", module, threads=1).failure
    assert failure.kind is FailureKind.build_error
    assert "set export.device=cuda" in failure.hint
