"""The search for a divergence in exports of every shape of arguments, and the findings that are no operator's fault."""

import onnx
import onnxruntime as ort
import plain_models
import pytest
import torch
from faulty_models import Perceptron, make_spec
from safetensors.torch import save_file
from torch import nn

from exporter import Dim, DType, ExportDirectory, FailureKind, Fill, FillKind, Input, sequence
from exporter.conductor import run_export
from exporter.errors import StepError
from exporter.evidence import Finding, WeightsMode
from exporter.failure_fingerprint import take_failure_fingerprint
from exporter.failures import describe_failure
from exporter.result import Step

N = {"n": Dim(min=1, max=16, example=4)}


def swap(old: str, new: str):
    """A fault: the last node of an operator is another operator."""

    def tamper(model: onnx.ModelProto) -> None:
        [*_, node] = [node for node in model.graph.node if node.op_type == old]
        node.op_type = new

    return tamper


@pytest.fixture
def find(monkeypatch, tmp_path):
    """Export with a file that is changed right after it is saved, and give the result."""

    def run(module, inputs=None, tamper=None, dims=None, **model):
        original = sequence.save.save

        def save_and_tamper(captured, directory: ExportDirectory, spec) -> None:
            original(captured, directory, spec)
            saved = onnx.load(directory.model, load_external_data=False)
            tamper(saved)
            directory.model.write_bytes(saved.SerializeToString())

        if tamper is not None:
            monkeypatch.setattr(sequence.save, "save", save_and_tamper)
        spec = make_spec(inputs=inputs, dims=dims or N, **model)
        spec.export.rescue = False
        result = run_export(spec, tmp_path / "out", module, threads=1)
        assert result.failure is not None
        assert result.divergence is not None, result.failure
        return result

    return run


def test_nested_arguments_and_constants(find):
    inputs = {
        "value": Input(["n", 3], argument="past[0](1)"),
        "right": Input(["n", 3], argument="images.right"),
        "b": Input(["n", 3], argument="rest(1)"),
        "a": Input(["n", 3], argument="rest(0)"),
        "key": Input(["n", 3], argument="past[0](0)"),
        "x": Input(["n", 3], argument="table.x"),
        "left": Input(["n", 3], argument="images.left"),
    }
    constants = {"mask": None, "mode": "double", "scale": 2.5}
    found = find(plain_models.TakesNested(), inputs, swap("Sub", "Add"), constants=constants).divergence
    assert (found.finding, found.op_type) == (Finding.value, "Add")
    assert "past[0][1] / 2" in found.source


class Joins(nn.Module):
    def forward(self, once, past):
        y = torch.cat([once, once], 1)
        return (y * 2 - 1) * torch.cat([past, once], 1).sum()


def test_sizes_computed_from_dims(find):
    dims = {
        "n": Dim(min=1, max=4, example=2),
        "seq": Dim(min=2, max=16, example=6, multiple_of=2),
        "past": Dim(min=0, max=8, example=3),
    }
    inputs = {"past": Input(["n", "past + 2*seq"]), "once": Input(["n", "seq"])}
    found = find(Joins(), inputs, swap("Sub", "Add"), dims).divergence
    assert (found.finding, found.op_type) == (Finding.value, "Add")
    assert "y * 2 - 1" in found.source


class Widens(nn.Module):
    def forward(self, x):
        return (x.reshape(-1, 2, 2).transpose(1, 2).float() - 1) * 2


class WidensAtOnce(nn.Module):
    def forward(self, x):
        return (x.to(torch.float32) - 1) * 2


@pytest.mark.parametrize(
    ("module", "dtype"),
    [(Widens, DType.bfloat16), (Widens, DType.float16), (WidensAtOnce, DType.float8_e4m3fn)],
)
def test_narrow_inputs(find, module, dtype):
    inputs = {"x": Input(["n", 4], dtype, Fill(FillKind.randint, low=1, high=8))}
    result = find(module(), inputs, swap("Sub", "Add"))
    found = result.divergence
    assert (found.finding, found.op_type) == (Finding.value, "Add"), result.failure


def test_a_fault_among_narrow_values_is_found_where_it_is(find):
    def tamper(model: onnx.ModelProto) -> None:
        [node] = [node for node in model.graph.node if node.op_type == "Transpose"]
        node.attribute[0].ints[:] = [0, 1, 2]

    inputs = {"x": Input(["n", 4], DType.bfloat16)}
    found = find(Widens(), inputs, tamper).divergence
    assert (found.finding, found.op_type) == (Finding.value, "Transpose")


class Turns(nn.Module):
    def forward(self, z):
        return (z * (1 + 2j)).imag - 1


def test_complex_inputs(find):
    found = find(Turns(), {"z": Input(["n", 4], DType.complex64)}, swap("Sub", "Add")).divergence
    assert (found.finding, found.op_type) == (Finding.value, "Add")


def test_weights_that_were_streamed(find, tmp_path):
    save_file(Perceptron().state_dict(), tmp_path / "w.safetensors")
    result = find(None, None, swap("Relu", "Neg"), weights=str(tmp_path / "w.safetensors"))
    assert result.weights.mode is WeightsMode.streamed
    assert (result.divergence.finding, result.divergence.op_type) == (Finding.value, "Neg")


class Subtracts(nn.Module):
    def forward(self, x):
        return x - x * 2


def test_what_onnx_runtime_does_on_loading_is_no_fault_of_the_file(find, monkeypatch):
    """Its optimizer is made to get it wrong: it loads another graph, unless it is told not to optimize."""
    original = ort.InferenceSession

    def load(model, options, **arguments):
        level = options.graph_optimization_level
        if isinstance(model, str) and level != ort.GraphOptimizationLevel.ORT_DISABLE_ALL:
            changed = onnx.load(model)
            swap("Sub", "Add")(changed)
            model = changed.SerializeToString()
        return original(model, options, **arguments)

    monkeypatch.setattr(ort, "InferenceSession", load)
    result = find(Subtracts())
    assert result.failure.kind is FailureKind.parity_failed
    assert result.divergence.finding is Finding.runtime
    assert "without ONNX Runtime's own optimization on loading the file is right" in result.failure.cause


def test_another_number_of_outputs_was_fixed_at_capture(find):
    result = find(plain_models.ReturnsMore())
    assert (result.failure.step, result.failure.kind) == (Step.parity, FailureKind.interface_mismatch)
    assert "forward returns 2 tensors, the graph gives output; the captured program differs" in result.failure.cause
    assert (result.divergence.finding, result.divergence.case) == (Finding.capture, "between")


def test_a_wrong_shape_in_the_file_with_the_right_values_blames_nothing_else(find):
    def tamper(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 9

    result = find(Subtracts(), None, tamper)
    assert (result.failure.step, result.failure.kind) == (Step.parity, FailureKind.interface_mismatch)
    assert (result.divergence.finding, result.divergence.case) == (Finding.unknown, "example")
    assert "the values are the same: what the graph says of its outputs is wrong" in result.failure.cause


def test_what_was_fixed_at_capture_is_found_below_the_tolerance_too(monkeypatch, tmp_path):
    spec = make_spec()
    spec.precision.rtol = spec.precision.atol = 1e-3
    result = run_export(spec, tmp_path, plain_models.IsSlightlyOff(), threads=1)
    assert all(output.num_mismatched == 0 for case in result.cases for output in case.outputs)
    assert result.divergence.finding is Finding.capture


def test_where_they_part_is_no_part_of_the_fingerprint(find):
    result = find(Subtracts(), None, swap("Sub", "Add"))
    cause, _, detail = result.failure.cause.partition("; they part first at ")
    assert detail
    assert result.failure.fingerprint == take_failure_fingerprint(result.failure.kind, cause)
    failures = [
        describe_failure(Step.parity, StepError(FailureKind.parity_failed, "the cause", detail=words))
        for words in ("they part first at a", "the search failed", "")
    ]
    assert len({failure.fingerprint for failure in failures}) == 1
    assert [failure.cause for failure in failures] == [
        "the cause; they part first at a",
        "the cause; the search failed",
        "the cause",
    ]
