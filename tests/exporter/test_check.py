"""A file that is not what was asked for does not get past the check."""

import faulty_models
import onnx
import pytest

from exporter.capture import UNBOUNDED, DimRange
from exporter.cases import choose_cases
from exporter.check import check
from exporter.errors import FailureKind, StepError
from exporter.result import Step, TensorRecord
from exporter.spec import Dim, DType, Input, Output
from exporter.steps import StepFailed, StepRecorder


def failure_of(exported, spec=None, ranges=()):
    """The failure that the step of an export comes to."""
    with pytest.raises(StepFailed) as caught, StepRecorder().step(Step.check):
        check(exported.directory.model, spec or exported.spec, ranges, choose_cases(exported.spec))
    return caught.value.failure


def edit(exported, change):
    """Change the graph on disk; its weights stay where they are."""
    model = onnx.load(exported.directory.model, load_external_data=False)
    change(model)
    exported.directory.model.write_bytes(model.SerializeToString())


def test_a_good_file_is_described(perceptron):
    graph = check(perceptron.directory.model, perceptron.spec, [], [])
    assert graph.inputs == [TensorRecord(name="x", dtype="float32", shape=["n", 8])]
    assert graph.outputs == [TensorRecord(name="y", dtype="float32", shape=["n", 16])]
    assert graph.op_counts == {"Gemm": 1, "Relu": 1}


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_invalid(copied, part):
    content = copied.directory.model.read_bytes()
    copied.directory.model.write_bytes(content[: int(len(content) * part)])
    assert failure_of(copied).kind is FailureKind.invalid_onnx


@pytest.mark.parametrize("content", [b"\x00" * 100, b"not a model", b"\xff" * 1000])
def test_a_file_of_something_else_is_invalid(copied, content):
    copied.directory.model.write_bytes(content)
    assert failure_of(copied).kind is FailureKind.invalid_onnx


def test_a_file_without_its_data_is_invalid(copied):
    copied.directory.model_data.unlink()
    failure = failure_of(copied)
    assert failure.kind is FailureKind.invalid_onnx
    assert "model.onnx.data" in failure.cause


def test_a_graph_with_an_unknown_operator_is_invalid(copied):
    edit(copied, lambda model: setattr(model.graph.node[0], "op_type", "Gemmm"))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.invalid_onnx
    assert "Gemmm" in failure.cause


def test_a_graph_whose_values_do_not_connect_is_invalid(copied):
    edit(copied, lambda model: model.graph.node[1].input.__setitem__(0, "lost"))
    assert failure_of(copied).kind is FailureKind.invalid_onnx


@pytest.mark.parametrize("opset", [18, 21])
def test_a_relabelled_opset_is_a_mismatch(copied, opset):
    edit(copied, lambda model: setattr(model.opset_import[0], "version", opset))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.opset_mismatch
    assert failure.cause.startswith(f"asked for opset 20, the file says {opset}: ")
    assert failure.hint == "choose an export.opset_version from 18 to 25"


def set_axis(value, axis, size):
    dim = value.type.tensor_type.shape.dim[axis]
    if isinstance(size, int):
        dim.dim_value = size
    else:
        dim.dim_param = size


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda m: set_axis(m.graph.input[0], 0, 4), "input 'x' is [4, 8] in the graph; the config says ['n', 8]"),
        (lambda m: set_axis(m.graph.input[0], 0, "m"), "input 'x' is ['m', 8] in the graph; the config says ['n', 8]"),
        (lambda m: set_axis(m.graph.output[0], 0, 4), "output 'y' is [4, 16] in the graph; the config says ['n', 16]"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].Clear(), "input 'x' is ['?', 8] in the graph"),
    ],
)
def test_a_dim_that_is_not_the_declared_one_is_a_mismatch(copied, change, cause):
    edit(copied, change)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.interface_mismatch
    assert cause in failure.cause


def rename_input(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "tensor_x"


def test_a_renamed_input_is_a_mismatch(copied):
    edit(copied, rename_input)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == "the graph takes tensor_x; the config says x"


def test_an_input_that_was_not_declared_is_a_mismatch(copied):
    extra = onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1])
    edit(copied, lambda model: model.graph.input.append(extra))
    assert failure_of(copied).cause == "the graph takes x, extra; the config says x"


def test_an_input_of_another_dtype_is_a_mismatch(perceptron):
    spec = faulty_models.make_spec(inputs={"x": Input(["n", 8], DType.float64)})
    failure = failure_of(perceptron, spec)
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == "input 'x' is float32 in the graph; the config says float64"


def test_an_output_shape_that_was_declared_wrong_is_a_mismatch(perceptron):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 5])})
    failure = failure_of(perceptron, spec)
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == "output 'y' is ['n', 16] in the graph; the config says ['n', 5]"


def test_an_output_that_was_declared_and_is_not_there_is_a_mismatch(copied):
    def rename(model):
        model.graph.output[0].name = model.graph.node[1].output[0] = "z"

    edit(copied, rename)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.interface_mismatch
    assert "z" in failure.cause


NARROW = [(4, UNBOUNDED, "any"), (0, 14, "14"), (2, 14, "14"), (4, 4, "4"), (17, UNBOUNDED, "any")]


@pytest.mark.parametrize(("low", "high", "upper"), NARROW)
def test_a_graph_that_holds_for_fewer_sizes_than_parity_tries_is_narrowed(perceptron, low, high, upper):
    failure = failure_of(perceptron, ranges=[DimRange("n", "x", 0, low, high)])
    assert failure.kind is FailureKind.dim_narrowed
    assert failure.cause.startswith(
        f"dim 'n' is declared 1 to 16, the captured graph holds for {low} to {upper} (axis 0 of 'x')"
    )


def test_one_narrow_axis_among_wide_ones_is_found(perceptron):
    wide = DimRange("n", "x", 0, 0, UNBOUNDED)
    failure = failure_of(perceptron, ranges=[wide, DimRange("n", "x", 1, 4, 16), wide])
    assert failure.cause.endswith("(axis 1 of 'x'): forward branches on this size")


@pytest.mark.parametrize(("low", "high"), [(0, UNBOUNDED), (1, 16), (1, UNBOUNDED), (0, 16)])
def test_a_graph_that_holds_for_all_sizes_passes(perceptron, low, high):
    assert check(perceptron.directory.model, perceptron.spec, [DimRange("n", "x", 0, low, high)], []).inputs


@pytest.mark.parametrize(("low", "high"), [(3, UNBOUNDED), (0, 15), (2, 15)])
def test_a_range_passes_if_parity_tries_every_size_beyond_it(perceptron, low, high):
    ranges = [DimRange("n", "x", 0, low, high)]
    assert check(perceptron.directory.model, perceptron.spec, ranges, choose_cases(perceptron.spec)).inputs
    with pytest.raises(StepError) as caught:
        check(perceptron.directory.model, perceptron.spec, ranges, choose_cases(perceptron.spec)[:1])
    assert caught.value.kind is FailureKind.dim_narrowed


def test_operators_within_branches_are_counted(tmp_path):
    def branch(name, op):
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])
        return onnx.helper.make_graph([onnx.helper.make_node(op, ["x"], [name])], name, [], [value])

    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Abs"), else_branch=branch("b", "Abs"))
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"]),
            onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    spec = faulty_models.make_spec(
        inputs={"x": Input(["n"]), "c": Input([], DType.bool)},
        dims={"n": Dim(1, 4, 2)},
    )
    assert check(tmp_path / "model.onnx", spec, [], []).op_counts == {"Abs": 2, "If": 1}


def test_a_file_that_is_not_valid_is_told_as_such_by_check_itself(copied):
    copied.directory.model.write_bytes(b"")
    with pytest.raises(StepError) as caught:
        check(copied.directory.model, copied.spec, [], [])
    assert caught.value.kind is FailureKind.invalid_onnx
