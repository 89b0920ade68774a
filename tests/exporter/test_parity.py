"""A file that does not compute what the module does is caught, and the miss is named."""

import re

import faulty_models
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from exporter.cases import choose_cases
from exporter.comparison import NONFINITE
from exporter.errors import FailureKind, StepError
from exporter.evidence import CaseRecord, OutputParity
from exporter.parity import judge, open_session, prove_dims, run_cases
from exporter.result import Step, TensorRecord
from exporter.spec import Input, Output
from exporter.steps import StepFailed, StepRecorder


def prove(exported, module=None, spec=None, outputs=()):
    """What the parity step does with the file as it now is; `outputs` is what the graph says of their shapes."""
    spec = spec or exported.spec
    with StepRecorder().step(Step.parity):
        session = open_session(exported.directory.model, prepack=False, threads=1)
        records = list(run_cases(session, module or exported.module, spec, choose_cases(spec), list(outputs)))
        judge(records)
    return records


def failure_of(exported, module=None, spec=None, outputs=()):
    with pytest.raises(StepFailed) as caught:
        prove(exported, module, spec, outputs)
    return caught.value.failure


def edit(exported, change):
    """Change the model on disk, its weights with it: all of it is in model.onnx then."""
    model = onnx.load(exported.directory.model)
    exported.directory.model_data.unlink()
    change(model)
    onnx.save(model, exported.directory.model)


def edit_weight(exported, name, change):
    def replace(model):
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        values = numpy_helper.to_array(tensor).copy()
        change(values)
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    edit(exported, replace)


def add(index, value):
    def change(values):
        values[index] += value

    return change


def test_a_good_file_agrees_in_every_case(perceptron):
    records = prove(perceptron, outputs=perceptron.result.outputs)
    assert [record.name for record in records] == ["example", "minimum", "twos", "next", "between", "max_n"]
    assert [record.sizes["n"] for record in records] == [4, 1, 2, 5, 7, 16]
    assert [output.num_elements for record in records for output in record.outputs] == [64, 16, 32, 80, 112, 256]
    assert all(record.passed for record in records)


def test_editing_alone_breaks_nothing(copied):
    edit_weight(copied, "linear.bias", add(0, 0.0))
    assert all(record.passed for record in prove(copied))


def test_one_changed_weight_of_many_fails_and_is_named(copied):
    edit_weight(copied, "linear.weight", add((3, 5), 0.1))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.parity_failed
    assert failure.cause.startswith("output 'y', case ")
    assert "elements out of tolerance, max_abs_diff 0." in failure.cause
    assert failure.cause.endswith(" of 6 cases missed")


def test_a_weight_that_makes_nan_in_onnx_runtime_alone_is_told_so(copied):
    edit_weight(copied, "linear.bias", add(0, float("inf")))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.nonfinite
    assert failure.cause == (
        f"output 'y', case example (n=4): {NONFINITE} in 4 of 64 elements (ONNX Runtime); 6 of 6 cases missed"
    )


def test_a_miss_far_from_an_exact_zero_is_a_parity_failure(copied):
    edit_weight(copied, "linear.bias", add(slice(None), 1000.0))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.parity_failed
    assert re.search(r"\): (\d+) of \1 elements out of tolerance, max_abs_diff 1e\+03; 6 of 6 cases", failure.cause)


def test_parity_fails_when_an_output_is_missing(copied):
    class Two(nn.Module):
        def forward(self, x):
            y = copied.module(x)
            return y, y

    failure = failure_of(copied, Two())
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == "forward returns 2 tensors, the graph gives y"


def test_an_output_that_the_module_does_not_have_is_a_mismatch(copied):
    def publish(model):
        hidden = model.graph.node[0].output[0]
        model.graph.output.append(onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, ["n", 16]))

    edit(copied, publish)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause.startswith("forward returns 1 tensors, the graph gives y, ")


def test_outputs_in_another_order_fail(copied):
    def publish_first(model):
        hidden = model.graph.node[0].output[0]
        model.graph.output.insert(0, onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, ["n", 16]))

    class Both(nn.Module):
        def forward(self, x):
            hidden = copied.module.linear(x)
            return torch.relu(hidden), hidden

    edit(copied, publish_first)
    assert failure_of(copied, Both()).kind is FailureKind.parity_failed


def test_a_size_baked_into_the_graph_fails_at_the_other_sizes(copied):
    def bake(model):
        shape = numpy_helper.from_array(np.array([4, 16]), "baked")
        model.graph.initializer.append(shape)
        model.graph.node[1].output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Reshape", ["before", "baked"], ["y"]))

    edit(copied, bake)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.runtime_error
    assert failure.cause.startswith("ONNX Runtime in case minimum (n=1): ")


def test_a_symbolic_dim_replaced_by_the_example_is_caught(copied):
    def fix(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    edit(copied, fix)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.runtime_error
    assert "minimum (n=1)" in failure.cause
    assert "Expected: 4" in failure.cause


def test_an_output_of_another_shape_fails_though_it_broadcasts(copied):
    def squeeze(model):
        model.graph.node[1].output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        model.graph.node.append(onnx.helper.make_node("Unsqueeze", ["before", "axes"], ["y"]))
        model.graph.output[0].type.tensor_type.ClearField("shape")

    edit(copied, squeeze)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.parity_failed
    assert "torch gives float32[4, 16], ONNX Runtime float32[1, 4, 16]" in failure.cause


def test_an_output_of_another_dtype_fails(copied):
    def cast(model):
        model.graph.node[1].output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Cast", ["before"], ["y"], to=onnx.TensorProto.DOUBLE))
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    edit(copied, cast)
    failure = failure_of(copied)
    assert failure.kind is FailureKind.parity_failed
    assert "torch gives float32[4, 16], ONNX Runtime float64[4, 16]" in failure.cause


@pytest.mark.parametrize(
    ("shape", "cause"),
    [
        ([4, 16], "is [4, 16] in the graph, and came out as [1, 16] in case minimum (n=1)"),
        (["n", 15], "is ['n', 15] in the graph, and came out as [4, 16] in case example (n=4)"),
        ([16], "is [16] in the graph, and came out as [4, 16] in case example (n=4)"),
        (["n", "n"], "is ['n', 'n'] in the graph, and came out as [4, 16] in case example (n=4)"),
        ([1, "n", 16], "is [1, 'n', 16] in the graph, and came out as [4, 16] in case example (n=4)"),
    ],
)
def test_a_shape_that_is_not_what_the_graph_says_is_a_mismatch(perceptron, shape, cause):
    failure = failure_of(perceptron, outputs=[TensorRecord(name="y", dtype="float32", shape=shape)])
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == f"output 'y' {cause}"


@pytest.mark.parametrize("shape", [["n", 16], ["2*n - n", 16], ["?", "m"], ["u0", 16], ["Max(2, n)", 16]])
def test_an_axis_whose_size_the_graph_does_not_say_may_be_any(perceptron, shape):
    record = TensorRecord(name="y", dtype="float32", shape=shape)
    assert all(case.passed for case in prove(perceptron, outputs=[record]))


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike"])
def test_a_graph_that_draws_noise_is_nondeterministic(copied, op_type):
    edit(copied, lambda model: setattr(model.graph.node[1], "op_type", op_type))
    failure = failure_of(copied)
    assert failure.kind is FailureKind.nondeterministic
    assert failure.cause == "ONNX Runtime gives two results for 'y' on the same inputs"


def test_a_module_that_draws_noise_is_nondeterministic(perceptron):
    class Noisy(nn.Module):
        def forward(self, x):
            return perceptron.module(x) + torch.rand(1)

    failure = failure_of(perceptron, Noisy())
    assert failure.kind is FailureKind.nondeterministic
    assert failure.cause == "PyTorch gives two results for 'y' on the same inputs"


def test_a_module_that_fails_at_one_size_is_told_with_the_case(perceptron):
    class Picky(nn.Module):
        def forward(self, x):
            if x.shape[0] == 7:
                raise RuntimeError("seven")
            return perceptron.module(x)

    failure = failure_of(perceptron, Picky())
    assert failure.kind is FailureKind.forward_error
    assert failure.cause == "PyTorch in case between (n=7): seven"


def test_a_module_that_writes_to_its_input_does_not_change_what_onnx_runtime_gets(perceptron):
    class Writes(nn.Module):
        def forward(self, x):
            y = perceptron.module(x)
            x.zero_()
            return y

    assert all(record.passed for record in prove(perceptron, Writes()))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 64])
def test_a_file_that_onnx_runtime_refuses_is_invalid(copied, content):
    copied.directory.model.write_bytes(content)
    assert failure_of(copied).kind is FailureKind.ort_load


@pytest.mark.parametrize("num_bytes", [None, 0, 100])
def test_weights_that_are_missing_or_cut_off_are_invalid(copied, num_bytes):
    if num_bytes is None:
        copied.directory.model_data.unlink()
    else:
        copied.directory.model_data.write_bytes(copied.directory.model_data.read_bytes()[:num_bytes])
    assert failure_of(copied).kind is FailureKind.ort_load


def test_an_operator_of_an_unknown_domain_is_not_run(copied):
    def estrange(model):
        model.graph.node[1].domain = "com.example"
        model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))

    edit(copied, estrange)
    assert failure_of(copied).kind in (FailureKind.ort_load, FailureKind.parity_unsupported)


def test_an_operator_without_a_kernel_for_its_type_is_unsupported(copied):
    def narrow(model):
        # Valid ONNX, but ONNX Runtime has no Relu for int16.
        model.graph.node[1].input[0] = "narrow"
        model.graph.node[1].output[0] = "relu"
        model.graph.node.insert(
            1,
            onnx.helper.make_node("Cast", [model.graph.node[0].output[0]], ["narrow"], to=onnx.TensorProto.INT16),
        )
        model.graph.node.append(onnx.helper.make_node("Cast", ["relu"], ["y"], to=onnx.TensorProto.FLOAT))

    edit(copied, narrow)
    assert failure_of(copied).kind is FailureKind.parity_unsupported


def test_declared_nan_passes_only_for_the_output_that_declares_it(copied):
    class Nan(nn.Module):
        def forward(self, x):
            return copied.module(x) * float("nan")

    edit_weight(copied, "linear.bias", add(slice(None), float("nan")))
    assert failure_of(copied, Nan()).kind is FailureKind.nonfinite
    spec = faulty_models.make_spec(outputs={"y": Output(nonfinite=True)})
    assert all(record.passed for record in prove(copied, Nan(), spec))
    assert failure_of(copied, None, spec).kind is FailureKind.parity_failed


def parity(output="y", *, passed=False, diff=None, reason="wrong"):
    return OutputParity(
        output=output,
        passed=passed,
        num_elements=4,
        num_mismatched=0 if passed else 1,
        max_abs_diff=diff,
        max_rel_diff=diff,
        reason="" if passed else reason,
    )


def record(name, *outputs, **sizes):
    return CaseRecord(name=name, sizes=sizes, seed=0, outputs=list(outputs))


def test_no_miss_is_no_verdict():
    judge([record("example", parity(passed=True, diff=0.1)), record("minimum")])


def test_the_verdict_names_output_case_sizes_and_difference():
    cases = [
        record("example", parity("a", passed=True, diff=0.0), n=4, m=2),
        record("minimum", parity("a", passed=True, diff=0.0), parity("b", diff=0.125, reason="bad"), n=1, m=1),
        record("between", parity("b", diff=0.0625), n=7, m=3),
    ]
    with pytest.raises(StepError) as caught:
        judge(cases)
    assert caught.value.kind is FailureKind.parity_failed
    assert caught.value.cause == "output 'b', case minimum (n=1, m=1): bad, max_abs_diff 0.125; 2 of 3 cases missed"


def test_the_verdict_names_the_worst_output_of_a_case():
    with pytest.raises(StepError, match=r"^output 'c', "):
        judge([record("example", parity("a", diff=0.5), parity("b", diff=0.25), parity("c", diff=None))])


def test_nan_is_a_verdict_of_its_own():
    with pytest.raises(StepError) as caught:
        judge([record("example", parity(reason=f"{NONFINITE} in 1 of 4 elements (torch)"))])
    assert caught.value.kind is FailureKind.nonfinite


def test_a_size_is_proven_only_by_a_case_that_held_for_all_outputs():
    good, bad = parity(passed=True, diff=0.0), parity()
    spec = faulty_models.make_spec(
        inputs={"x": Input(["n", "m"])},
        dims={"n": faulty_models.Dim(1, 16, 4), "m": faulty_models.Dim(1, 9, 2)},
    )
    dims = prove_dims(
        spec,
        [
            record("example", good, good, n=4, m=2),
            record("minimum", good, bad, n=1, m=1),
            record("max_n", good, n=16, m=2),
        ],
    )
    assert [(dim.name, dim.min, dim.max, dim.example, dim.proven_sizes) for dim in dims] == [
        ("n", 1, 16, 4, [4, 16]),
        ("m", 1, 9, 2, [2]),
    ]
