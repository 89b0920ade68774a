"""Faults planted in a saved graph, or in a module, and the place that the search names."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faulty_models
import numpy as np
import onnx
import onnx_ir as ir
import plain_models
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from exporter import (
    DType,
    ExportDirectory,
    ExportResult,
    ExportSpec,
    FailureKind,
    Fill,
    FillKind,
    Input,
    Precision,
    bisection,
    sequence,
)
from exporter.build import build_module
from exporter.cases import Case
from exporter.conductor import run_export
from exporter.divergence import DivergenceSearch
from exporter.evidence import Divergence, Finding
from exporter.spec import NoiseFloor
from exporter.trace import Trace, read_trace

Tamper = Callable[[onnx.ModelProto], None]

SEQUENCE = {"x": Input(shape=["n", 5, 8])}


@dataclass(frozen=True)
class Subject:
    """A good export of the encoder, with the trace that its search would have had."""

    spec: ExportSpec
    module: nn.Module
    directory: ExportDirectory
    trace: Trace


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Subject:
    spec = faulty_models.make_spec("faulty_models.Encodes", SEQUENCE)
    module = build_module(spec.model)
    traces: list[Trace] = []

    def keep(captured) -> Trace:
        traces.append(read_trace(captured))
        return traces[-1]

    directory = ExportDirectory(tmp_path_factory.mktemp("encoder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "read_trace", keep)
        assert run_export(spec, directory.path, module, threads=1).failure is None
    return Subject(spec, module, directory, traces[0])


@pytest.fixture
def search(encoder, tmp_path):
    """Search a copy of the good export into which a fault was planted."""

    def run(tamper: Tamper, **changes) -> Divergence:
        copy = ExportDirectory(Path(tempfile.mkdtemp(dir=tmp_path)))
        shutil.copytree(encoder.directory.path, copy.path, dirs_exist_ok=True)
        change_file(copy, tamper)
        search = DivergenceSearch(encoder.trace, encoder.spec, encoder.module, copy.model, 1)
        return dataclasses.replace(search, **changes).find(Case("example", {"n": 4}, 0))

    return run


@pytest.fixture
def tampered(monkeypatch, tmp_path):
    """Export a model whose file is changed right after it is saved."""

    def run(tamper: Tamper, target: str = "faulty_models.Encodes", **spec) -> ExportResult:
        original = sequence.save.save

        def save_and_tamper(captured, directory: ExportDirectory, model) -> None:
            original(captured, directory, model)
            change_file(directory, tamper)

        monkeypatch.setattr(sequence.save, "save", save_and_tamper)
        spec.setdefault("inputs", SEQUENCE)
        return run_export(faulty_models.make_spec(target, **spec), tmp_path / "out", threads=1)

    return run


def change_file(directory: ExportDirectory, tamper: Tamper) -> None:
    model = onnx.load(directory.model, load_external_data=False)
    tamper(model)
    directory.model.write_bytes(model.SerializeToString())


def nodes_of(model: onnx.ModelProto, *op_types: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in op_types]


def change_epsilon(model: onnx.ModelProto) -> None:
    # Each layer has two.
    node = nodes_of(model, "LayerNormalization")[2]
    next(item for item in node.attribute if item.name == "epsilon").f = 1e-3


def swap_operator(model: onnx.ModelProto) -> None:
    node = nodes_of(model, "Gelu")[3]
    node.op_type = "Relu"
    del node.attribute[:]


def shift_initializer(model: onnx.ModelProto) -> None:
    [tensor] = [item for item in model.graph.initializer if item.name == "encoder.layers.2.norm2.bias"]
    values = numpy_helper.to_array(tensor).copy()
    values[3] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def poison_initializer(model: onnx.ModelProto) -> None:
    [tensor] = [item for item in model.graph.initializer if item.name == "encoder.layers.2.norm2.bias"]
    tensor.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), tensor.name))


def found_in(result: ExportResult) -> Divergence:
    assert result.failure is not None
    assert result.divergence is not None, result.failure
    return result.divergence


def test_a_changed_epsilon_deep_in_a_model_is_found_at_its_layer(tampered, tmp_path):
    result = tampered(change_epsilon)
    found = found_in(result)
    assert result.failure.kind is FailureKind.parity_failed
    assert (found.finding, found.op_type, found.module) == (
        Finding.value,
        "LayerNormalization",
        "encoder.layers.1.norm1",
    )
    assert found.node in result.failure.cause
    assert "encoder.layers.1.norm1" in result.failure.cause
    assert found.source.startswith("faulty_models.py:")
    assert found.source.endswith("return self.head(self.encoder(x))")
    assert float(found.expected) != float(found.actual)
    assert found.max_abs_diff == pytest.approx(abs(float(found.expected) - float(found.actual)), rel=1e-3)
    # The fault is thousands of roundings, all before it a few.
    assert found.roundings > 100 * found.roundings_before
    assert found.suspects == []
    directory = ExportDirectory(tmp_path / "out")
    assert directory.read_result().divergence == found
    section = directory.report.read_text().split("## Where it went wrong, case ")[1].split("## ")[0]
    assert section.startswith(found.case)
    for text in (found.node, "`encoder.layers.1.norm1`", found.source, found.expected, found.actual):
        assert text in section


def test_a_swapped_operator_is_named(search):
    found = search(swap_operator)
    assert (found.op_type, found.module) == ("Relu", "encoder.layers.3")


def test_a_wrong_initializer_is_found_at_the_operator_that_reads_it(search):
    found = search(shift_initializer)
    assert (found.op_type, found.module) == ("LayerNormalization", "encoder.layers.2.norm2")
    assert found.max_abs_diff == pytest.approx(1e-3, rel=0.01)


def test_nan_that_onnx_runtime_alone_has_is_found_where_it_begins(search):
    found = search(poison_initializer)
    assert (found.finding, found.module, found.actual) == (Finding.value, "encoder.layers.2.norm2", "nan")


def test_an_output_that_parts_by_itself_is_named_by_its_saved_name(search):
    def tamper(model):
        [tensor] = [item for item in model.graph.initializer if item.name == "head.bias"]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))

    found = search(tamper)
    assert (found.value, found.module) == ("output", "head")


def test_nodes_inside_an_operator_of_torch_are_named_as_suspects(search):
    def tamper(model):
        nodes_of(model, "Softmax")[1].op_type = "LogSoftmax"

    found = search(tamper)
    assert found.module == "encoder.layers.1.self_attn"
    # The softmax itself is no value of the captured program: it is inside scaled_dot_product_attention.
    assert found.op_type == "MatMul"
    assert any("LogSoftmax" in suspect for suspect in found.suspects)


def test_whole_numbers_have_no_rounding(tampered):
    def tamper(model):
        nodes_of(model, "Where")[0].input[:] = ["mask", "ids", "ids"]

    inputs = {
        "ids": Input(shape=["n", 8], dtype=DType.int64, fill=Fill(kind=FillKind.randint, low=1, high=5)),
        "mask": Input(shape=["n", 8], dtype=DType.bool, fill=Fill(kind=FillKind.randint, low=0, high=2)),
    }
    found = found_in(tampered(tamper, "faulty_models.Gathers", inputs=inputs))
    assert (found.op_type, found.expected) == ("Where", "0")
    assert found.roundings is None


@pytest.mark.parametrize("tamper", [change_epsilon, swap_operator, shift_initializer])
@pytest.mark.parametrize(("bound", "limit"), [("_MAX_VALUES", 12), ("_MAX_BYTES", 20_000)])
def test_windows_that_hold_a_few_values_come_to_the_same_place(search, monkeypatch, tamper, bound, limit):
    held: list[int] = []
    original = bisection.run_graph

    def watch(*arguments):
        arrays = original(*arguments)
        held.append(len(arrays) if bound == "_MAX_VALUES" else sum(array.nbytes for array in arrays.values()))
        return arrays

    monkeypatch.setattr(bisection, "run_graph", watch)
    whole = search(tamper)
    monkeypatch.setattr(bisection, bound, limit)
    found = search(tamper)
    assert (found.node, found.module, found.value) == (whole.node, whole.module, whole.value)
    assert 1 < found.num_sessions <= 4
    if bound == "_MAX_BYTES":
        assert max(held[1:]) <= limit


def test_what_was_fixed_at_capture_is_no_fault_of_the_graph(tmp_path):
    result = run_export(faulty_models.make_spec(), tmp_path, plain_models.Ties(), threads=1)
    found = found_in(result)
    assert (found.finding, found.node) == (Finding.capture, "")
    # The one is ONNX Runtime's difference from forward, the other the captured program's in torch.
    assert found.max_abs_diff == pytest.approx(result.max_abs_diff)
    assert "something was fixed at capture" in result.failure.cause


def test_a_tolerance_below_rounding_blames_no_operator(tmp_path):
    spec = faulty_models.make_spec()
    spec.precision = Precision(name=spec.precision.name, rtol=0.0, atol=1e-12)
    spec.parity.noise_floor = NoiseFloor.off
    result = run_export(spec, tmp_path, threads=1)
    found = found_in(result)
    assert found.finding is Finding.rounding, found
    assert found.roundings < bisection.PARTED
    assert "no operator parts by more than rounding" in result.failure.cause
    assert "raise precision.rtol" in result.failure.hint


def test_nan_of_torch_itself_is_found_where_it_begins(tmp_path):
    result = run_export(faulty_models.make_spec("faulty_models.TakesLogarithm"), tmp_path, threads=1)
    found = found_in(result)
    assert (found.finding, found.op_type, found.expected) == (Finding.nonfinite, "aten.log.default", "NaN")
    assert found.source.endswith("return torch.log(x)")


def test_a_passed_export_has_no_divergence(perceptron):
    assert perceptron.result.divergence is None


def test_a_search_that_fails_is_no_error_of_its_own(search, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(bisection, "run_graph", fail)
    assert search(swap_operator).summary == "the search for where they part failed: RuntimeError: out of luck"


def test_the_search_ends_when_its_time_is_over(search, monkeypatch):
    monkeypatch.setattr(bisection, "_MAX_SECONDS", -1.0)
    found = search(swap_operator)
    assert (found.finding, found.num_sessions) == (Finding.unknown, 0)
    assert "not finished after" in found.summary


def test_measure_counts_roundings_of_the_largest_element():
    node = torch.fx.Graph().placeholder("x")
    expected = torch.tensor([4.0, 1.0, 0.0])
    actual = np.array([4.0, 1.0 + 8 * np.finfo(np.float32).eps, 0.0], np.float32)
    comparison = bisection.measure("x", node, expected, actual)
    assert comparison.roundings == pytest.approx(2.0)
    assert (comparison.expected, comparison.parts) == ("1", False)


@pytest.mark.parametrize(
    ("expected", "actual", "parts"),
    [
        ([1.0, float("nan")], [1.0, float("nan")], False),
        ([1.0, float("-inf")], [1.0, float("-inf")], False),
        ([1.0, float("inf")], [1.0, float("-inf")], True),
        ([1.0, 2.0], [1.0, float("nan")], True),
        ([], [], False),
        ([0.0, 0.0], [0.0, 1e-30], True),
    ],
)
def test_measure_matches_nan_and_infinity_in_place(expected, actual, parts):
    node = torch.fx.Graph().placeholder("x")
    comparison = bisection.measure("x", node, torch.tensor(expected), np.array(actual, np.float32))
    assert comparison.parts is parts


def test_measure_sees_another_shape():
    node = torch.fx.Graph().placeholder("x")
    comparison = bisection.measure("x", node, torch.zeros(2, 3), np.zeros((3, 2), np.float32))
    assert comparison.parts
    assert (comparison.expected, comparison.actual) == ("float32[2, 3]", "float32[3, 2]")


def test_a_gross_fault_behind_all_values_that_can_be_compared_is_not_called_rounding(tmp_path, monkeypatch):
    def negate(program, spec, scratch):
        graph = program.model.graph
        node = ir.node("Neg", [graph.outputs[0]])
        node.outputs[0].shape, node.outputs[0].type = graph.outputs[0].shape, graph.outputs[0].type
        graph.append(node)
        graph.outputs[0] = node.outputs[0]
        return []

    monkeypatch.setattr("exporter.sequence.optimize.optimize", negate)
    result = run_export(faulty_models.make_spec(), tmp_path, faulty_models.Perceptron(), threads=1)
    assert found_in(result).finding is Finding.unknown
    assert "rtol" not in result.failure.hint
