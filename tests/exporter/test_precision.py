"""Each precision converts, keeps the interface, says what it changed, and is gated by its error against float32."""

from pathlib import Path

import faulty_models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import yaml
from torch import nn

from exporter import (
    DType,
    ExportDirectory,
    FailureKind,
    Fill,
    FillKind,
    Input,
    Output,
    Precision,
    PrecisionName,
    Status,
    Step,
)
from exporter import precision as conversion
from exporter.conductor import run_export
from exporter.errors import StepError
from exporter.report import render_report

CONF = Path(__file__).parents[2] / "conf" / "precision"
CONVERTED = [PrecisionName.fp16, PrecisionName.int8_dynamic, PrecisionName.int8_weights]


class Deep(nn.Module):
    """Four layers with weights to quantize; the first takes a matrix (Gemm), the others a batch of them (MatMul)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 64)
        self.layers = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 16))

    def forward(self, x):
        return self.layers(torch.tanh(self.first(x)).reshape(-1, 2, 32))


class Convolves(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 2)

    def forward(self, x):
        return self.conv(x.reshape(-1, 1, 2, 4)).relu()


def shipped(name) -> Precision:
    """The gates of conf/precision."""
    plain = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    # YAML 1.1 reads 1e-2, without a dot, as a word; OmegaConf does not.
    gates = {key: None if value is None else float(value) for key, value in plain.items() if key != "name"}
    return Precision(name=PrecisionName(name), **gates)


def export_in(name, path, module=None, **changes):
    torch.manual_seed(0)
    spec = faulty_models.make_spec(outputs=changes.pop("outputs", None), inputs=changes.pop("inputs", None))
    spec.precision = shipped(name)
    for key, value in changes.items():
        setattr(spec.export, key, value)
    return run_export(spec, path, Deep() if module is None else module, threads=1)


def test_every_precision_has_a_config_of_its_name():
    assert {path.stem for path in CONF.glob("*.yaml")} == {name.value for name in PrecisionName}
    for name in PrecisionName:
        assert shipped(name).name is name


OPS = {
    "fp16": {"Cast": 2},
    "int8_dynamic": {"DynamicQuantizeLinear": 4, "MatMulInteger": 4, "MatMul": -3, "Gemm": -1},
    "int8_weights": {"com.microsoft::MatMulNBits": 4, "MatMul": -3, "Gemm": -1},
}


@pytest.mark.parametrize("optimize", ["default", "none"])
@pytest.mark.parametrize("name", CONVERTED)
def test_a_precision_converts_passes_and_keeps_the_interface(tmp_path, name, optimize):
    result = export_in(name, tmp_path, outputs={"y": Output(shape=["n", 2, 16])}, optimize=optimize, opset_version=19)
    assert (result.status, result.failure) == (Status.passed, None)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in (*result.inputs, *result.outputs)] == [
        ("x", "float32", ["n", 8]),
        ("y", "float32", ["n", 2, 16]),
    ]
    record = result.passes[-1]
    assert record.name == f"precision_{name.value}"
    assert OPS[name].items() <= record.op_changes.items()
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 19
    assert {entry.key for entry in model.metadata_props} == {"modelpress.name", "modelpress.version"}
    assert not ExportDirectory(tmp_path).temporary.exists()


@pytest.mark.parametrize("name", CONVERTED)
def test_the_error_against_float32_is_told(tmp_path, name):
    result = export_in(name, tmp_path)
    errors = [output.rel_l2 for case in result.cases for output in case.outputs]
    assert all(1e-5 < error < 0.05 for error in errors)
    assert result.max_rel_l2 == max(errors)
    assert f"## Parity ({name.value}: " in render_report(result)


def test_half_precision_halves_the_weights(tmp_path):
    sizes = [export_in(name, tmp_path / name).files[-1].size_bytes for name in ("fp32", "fp16")]
    assert sizes[1] <= sizes[0] * 0.55


@pytest.mark.parametrize("name", CONVERTED)
def test_the_bytes_are_the_same_each_time(tmp_path, name):
    first, second = (export_in(name, tmp_path / place).files for place in ("a", "b/c"))
    assert first == second


def spoil(convert, change):
    """The converter, with a fault planted into the largest tensor that it leaves."""

    def convert_and_spoil(path):
        model = convert(path)
        tensor = max(model.graph.initializer, key=lambda item: len(item.raw_data))
        values = onnx.numpy_helper.to_array(tensor).copy()
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(values), tensor.name))
        return model

    return convert_and_spoil


def shuffle(values):
    return np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)


@pytest.mark.parametrize("change", [np.zeros_like, shuffle])
@pytest.mark.parametrize("name", CONVERTED)
def test_one_layer_with_wrong_weights_does_not_pass_the_shipped_gates(tmp_path, monkeypatch, name, change):
    converters = conversion._CONVERTERS
    monkeypatch.setitem(converters, name, spoil(converters[name], change))
    result = export_in(name, tmp_path)
    assert result.failure.kind is FailureKind.parity_failed
    assert "rel_l2" in result.failure.cause


@pytest.mark.parametrize("name", ["int8_dynamic", "int8_weights"])
def test_a_precision_that_applies_to_nothing_is_no_pass(tmp_path, name):
    failure = export_in(name, tmp_path, faulty_models.Doubles()).failure
    assert (failure.step, failure.kind) == (Step.optimize, FailureKind.precision_error)
    assert failure.cause.endswith("so nothing was converted")
    assert not ExportDirectory(tmp_path).temporary.exists()


def test_whole_numbers_have_no_half_precision(tmp_path):
    inputs = {
        "ids": Input(shape=["n", 8], dtype=DType.int64, fill=Fill(FillKind.randint, 0, 9)),
        "mask": Input(shape=["n", 8], dtype=DType.bool, fill=Fill(FillKind.ones)),
    }
    failure = export_in("fp16", tmp_path, faulty_models.Gathers(), inputs=inputs).failure
    assert failure.kind is FailureKind.precision_error
    assert failure.cause.startswith("fp16: the graph has no float32")


def test_convolutions_are_quantized_dynamically(tmp_path):
    result = export_in("int8_dynamic", tmp_path, Convolves())
    assert result.failure is None
    assert result.op_counts["ConvInteger"] == 1


def test_half_precision_beside_a_recurrent_layer_is_refused_before_it_crashes(tmp_path):
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[2,n,1] x) => (float[2,1,n,1] y) <float[1,3,1] w = {1,2,3}, float[1,3,1] r = {4,5,6}>
        { y, h = GRU<hidden_size=1>(x, w, r) }
    """)
    onnx.checker.check_model(model, full_check=True)
    program = torch.onnx.ONNXProgram(ir.from_proto(model), None)
    with pytest.raises(StepError) as caught:
        list(conversion.convert(program, PrecisionName.fp16, tmp_path))
    assert caught.value.kind is FailureKind.precision_error
    assert "the graph has GRU" in caught.value.cause


def test_bfloat16_is_in_the_file_and_never_passes_unproven(tmp_path):
    module = Deep()
    result = export_in("bf16", tmp_path, module)
    assert (result.failure.step, result.failure.kind) == (Step.parity, FailureKind.parity_unsupported)
    assert result.status is Status.unproven
    assert [tensor.dtype for tensor in (*result.inputs, *result.outputs)] == ["float32", "float32"]
    model = onnx.load(tmp_path / "model.onnx")
    assert {tensor.data_type for tensor in model.graph.initializer if tensor.dims} >= {onnx.TensorProto.BFLOAT16}
    assert onnx.TensorProto.FLOAT not in {tensor.data_type for tensor in model.graph.initializer}
    # The module that parity would compare with is left as it was.
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_bfloat16_takes_and_gives_what_the_module_does():
    torch.manual_seed(0)
    module = Deep().eval()
    x = torch.randn(3, 8)
    narrow = conversion.prepare_module(module, PrecisionName.bf16)
    with torch.no_grad():
        expected, found = module(x), narrow(x=x)
    assert found.dtype is torch.float32
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < shipped("bf16").max_rel_l2


@pytest.mark.parametrize("name", [name for name in PrecisionName if name is not PrecisionName.bf16])
def test_the_other_precisions_capture_the_module_itself(name):
    module = Deep()
    assert conversion.prepare_module(module, name) is module


def test_float32_has_no_conversion(tmp_path):
    assert [record.name for record in export_in("fp32", tmp_path).passes] == ["default"]


@pytest.mark.parametrize("optimize", ["none", ["fold_constants"]])
@pytest.mark.parametrize("name", CONVERTED)
def test_a_precision_holds_whatever_passes_are_asked_for(tmp_path, name, optimize):
    # Attention has constants that stand in nodes of their own until a pass lifts them.
    spec = faulty_models.make_spec(inputs={"x": Input(["n", 5, 8])})
    spec.precision, spec.export.optimize = shipped(name), optimize
    torch.manual_seed(0)
    result = run_export(spec, tmp_path, faulty_models.Encodes(), threads=1)
    assert (result.status, result.failure, result.rescues) == (Status.passed, None, [])
    assert result.passes[-1].name == f"precision_{name}"
