"""On a machine with an NVIDIA GPU: exports with the module on it. Skipped elsewhere."""

import faulty_models
import pytest

from exporter import Device, ExportDirectory, FailureKind, export
from exporter.build import build_module
from exporter.cuda import why_no_cuda

NO_GPU = why_no_cuda()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)]


def make_spec(model="Perceptron", device=Device.cuda, **keys):
    spec = faulty_models.make_spec(f"faulty_models.{model}", **keys)
    spec.export.device = device
    return spec


@pytest.mark.parametrize("model", ["Perceptron", "Encodes", "Ties", "Doubles", "WritesToItsInput"])
def test_a_model_passes_on_the_gpu(tmp_path, model):
    result = export(make_spec(model), tmp_path, threads=1)
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


def test_a_miss_on_the_gpu_is_found(tmp_path):
    spec = make_spec()
    given = build_module(spec.model)

    class Drifts(type(given)):
        def forward(self, x):
            import torch

            return super().forward(x) + (0.0 if torch.compiler.is_compiling() else 0.5)

    given.__class__ = Drifts
    result = export(spec, tmp_path, given, threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert result.divergence is not None
    assert "search for where they part failed" not in result.divergence.summary


def test_a_given_module_is_moved_and_one_on_the_gpu_is_not_taken_for_the_cpu(tmp_path):
    module = build_module(make_spec().model)
    assert export(make_spec(), tmp_path / "cuda", module, threads=1).failure is None
    assert next(module.parameters()).is_cuda
    failure = export(make_spec(device=Device.cpu), tmp_path / "cpu", module, threads=1).failure
    assert failure.kind is FailureKind.build_error
    assert "set export.device=cuda" in failure.hint
