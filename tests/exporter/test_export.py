"""Whole exports: good ones pass with the right names, and each planted fault is caught where it should be."""

import faulty_models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter import (
    ConfigError,
    Dim,
    DType,
    ExportDirectory,
    FailureKind,
    Fill,
    FillKind,
    Input,
    Output,
    Status,
    Step,
)
from exporter.conductor import run_export

STEPS = list(Step)
TWO = {"a": Input(["n", 8]), "b": Input(["n", 8])}
ZEROS = {"x": Input(["n", 8], fill=Fill(FillKind.zeros))}


def run_file(directory, **feeds):
    """The outputs of the saved file, by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(directory.model), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def export_module(module, path, spec=None):
    directory = ExportDirectory(path)
    result = run_export(spec or faulty_models.make_spec(), path, module, threads=1)
    # What was returned is what is on disk: other processes know nothing else.
    assert directory.read_result() == result
    assert directory.damaged_files(result) == []
    return result


def passed(module, path, spec=None):
    result = export_module(module, path, spec)
    assert (result.status, result.failure) == (Status.passed, None)
    assert [record.step for record in result.steps] == STEPS
    return result


def failed(module, path, spec=None):
    """The failure; all that a failed result must and must not have is checked on the way."""
    result = export_module(module, path, spec)
    assert result.status is Status.failed
    failure = result.failure
    first = [record.step for record in result.steps if record.attempt == 1]
    assert first == STEPS[: STEPS.index(failure.step) + 1]
    assert failure.hint
    assert f"- kind: `{failure.kind}`" in ExportDirectory(path).report.read_text()
    return failure


# --- planted faults


FAULTS = [
    (
        faulty_models.BranchesOnSize,
        Step.check,
        FailureKind.dim_narrowed,
        "dim 'n' is declared 1 to 16, the captured graph holds for 4 to any (axis 0 of 'x')",
    ),
    (faulty_models.FixesSize, Step.capture, FailureKind.dim_specialized, "inferred a static shape of 4"),
    (faulty_models.TakesSingularValues, Step.capture, FailureKind.unsupported_op, "aten._linalg_svd"),
    (faulty_models.BranchesOnValue, Step.capture, FailureKind.data_dependent, "data-dependent expression"),
    (faulty_models.Raises, Step.capture, FailureKind.forward_error, "ValueError: no | <b>such</b> thing"),
    (faulty_models.DrawsNoise, Step.parity, FailureKind.nondeterministic, "PyTorch gives two results for 'output'"),
    (faulty_models.Counts, Step.parity, FailureKind.nondeterministic, "PyTorch gives two results for 'output'"),
    (
        faulty_models.TakesLogarithm,
        Step.parity,
        FailureKind.nonfinite,
        "(torch and ONNX Runtime); 6 of 6 cases missed",
    ),
    (
        faulty_models.BranchesOnOneSize,
        Step.parity,
        FailureKind.baked_branch,
        "case between (n=7): 56 of 56 elements out of tolerance, max_abs_diff 100; 1 of 6 cases",
    ),
    (faulty_models.NeedsEvenSize, Step.parity, FailureKind.forward_error, "PyTorch in case minimum (n=1): shape '["),
    (
        faulty_models.ReturnsSize,
        Step.capture,
        FailureKind.interface_mismatch,
        "output 1 of forward is",
    ),
]


@pytest.mark.parametrize(("model", "step", "kind", "cause"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_caught(tmp_path, model, step, kind, cause):
    failure = failed(model(), tmp_path)
    assert (failure.step, failure.kind) == (step, kind)
    assert cause in failure.cause


def test_all_operators_without_an_onnx_function_are_named_also_those_in_a_branch(tmp_path):
    failure = failed(faulty_models.TakesManyOperators(), tmp_path)
    assert failure.kind is FailureKind.unsupported_op
    assert failure.ops == ["aten._linalg_svd.default", "aten.median.dim", "prims.prod.default"]
    assert failure.cause == "no ONNX function for aten._linalg_svd.default, aten.median.dim, prims.prod.default"


def test_a_function_on_sizes_without_an_onnx_function_is_named(tmp_path):
    failure = failed(faulty_models.TakesRootOfSize(), tmp_path)
    assert (failure.kind, failure.ops) == (FailureKind.unsupported_op, ["_sym_sqrt"])


def test_a_model_that_returns_no_tensor_does_not_pass(tmp_path):
    assert failed(faulty_models.ReturnsNothing(), tmp_path).kind in (
        FailureKind.interface_mismatch,
        FailureKind.invalid_onnx,
    )


def test_torchs_report_is_kept_under_a_fixed_name_where_the_conversion_failed(tmp_path):
    failed(faulty_models.TakesSingularValues(), tmp_path)
    assert "aten._linalg_svd" in (tmp_path / "torch_onnx_report.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.html",
        "report.md",
        "repro",
        "result.json",
        "spec.json",
        "torch_onnx_report.md",
    ]


def test_markup_in_a_models_message_is_text_in_the_report(tmp_path):
    failed(faulty_models.Raises(), tmp_path)
    assert (
        "- cause: PyTorch on the example: ValueError: no \\| &lt;b&gt;such&lt;/b&gt; thing"
        in (tmp_path / "report.md").read_text()
    )


def test_cases_before_a_failing_one_stay_on_record_with_the_sizes_they_prove(tmp_path):
    result = export_module(faulty_models.BranchesOnOneSize(), tmp_path)
    assert [(case.name, case.passed) for case in result.cases] == [
        ("example", True),
        ("minimum", True),
        ("twos", True),
        ("next", True),
        ("between", False),
        ("max_n", True),
    ]
    assert result.dims[0].proven_sizes == [1, 2, 4, 5, 16]


def test_two_dims_that_forward_makes_equal_are_a_conflict(tmp_path):
    spec = faulty_models.make_spec(
        inputs={"a": Input(["n", 8]), "b": Input(["m", 8])},
        dims={"n": Dim(1, 16, 4), "m": Dim(1, 16, 4)},
    )
    failure = failed(faulty_models.Adds(), tmp_path, spec)
    assert failure.kind is FailureKind.dim_conflict
    assert failure.cause == "'m' (axis 0 of 'b') is always n in forward"


@pytest.mark.parametrize(
    ("outputs", "cause"),
    [
        (("a", "b"), "forward returns output_0, output_2, output_3; the config declares a, b"),
        (("a", "b", "c", "d"), "forward returns output_0, output_2, output_3; the config declares a, b, c, d"),
    ],
)
def test_declared_outputs_of_another_number_are_a_mismatch(tmp_path, outputs, cause):
    spec = faulty_models.make_spec(outputs={name: Output() for name in outputs})
    failure = failed(faulty_models.ReturnsTuple(), tmp_path, spec)
    assert (failure.kind, failure.cause) == (FailureKind.interface_mismatch, cause)


def test_declared_outputs_that_are_not_the_keys_are_a_mismatch(tmp_path):
    spec = faulty_models.make_spec(outputs={"first": Output(), "x_out": Output(), "wrong": Output()})
    failure = failed(faulty_models.ReturnsDict(), tmp_path, spec)
    assert failure.kind is FailureKind.interface_mismatch
    assert failure.cause == "forward returns first, x_out, nested_last; the config declares first, x_out, wrong"


def test_a_declared_output_shape_that_is_wrong_is_a_mismatch(tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 5])})
    failure = failed(faulty_models.Perceptron(), tmp_path, spec)
    assert (failure.step, failure.kind) == (Step.check, FailureKind.interface_mismatch)
    assert failure.cause == "output 'y' is ['n', 16] in the graph; the config says ['n', 5]"


def test_a_misspelt_input_is_told_the_right_name(tmp_path):
    spec = faulty_models.make_spec(inputs={"imput": Input(["n", 8])})
    failure = failed(nn.Linear(8, 2), tmp_path, spec)
    assert (failure.step, failure.kind) == (Step.build, FailureKind.signature_mismatch)
    assert failure.cause == "model.inputs.imput: 'imput' is no argument of forward(input)"
    assert failure.hint == "did you mean 'input'?"


@pytest.mark.parametrize(
    ("target", "kind", "cause"),
    [
        ("faulty_models.NotAModule", FailureKind.build_error, "gives a NotAModule, not a torch.nn.Module"),
        ("faulty_models.CannotBeBuilt", FailureKind.build_error, "ValueError: no such size: -3"),
        ("torch.nn.Linear", FailureKind.build_error, "missing 2 required positional arguments"),
        ("faulty_models.Percepton", FailureKind.import_error, "no 'Percepton' in faulty_models"),
    ],
)
def test_a_source_that_gives_no_module_fails_to_build(tmp_path, target, kind, cause):
    failure = failed(None, tmp_path, faulty_models.make_spec(target))
    assert (failure.step, failure.kind) == (Step.build, kind)
    assert cause in failure.cause


def test_weights_that_do_not_fit_fail_to_build(tmp_path):
    save_file({"linear.weight": torch.zeros(16, 8)}, tmp_path / "weights.safetensors")
    spec = faulty_models.make_spec(weights=str(tmp_path / "weights.safetensors"))
    failure = failed(None, tmp_path / "out", spec)
    assert (failure.step, failure.kind) == (Step.build, FailureKind.weights_error)
    assert 'Missing key(s) in state_dict: "linear.bias"' in failure.cause


def test_bfloat16_cannot_be_proven(tmp_path):
    spec = faulty_models.make_spec(inputs={"x": Input(["n", 8], DType.bfloat16)})
    result = run_export(spec, tmp_path, faulty_models.Doubles(), threads=1)
    assert (result.status, result.failure.kind) == (Status.unproven, FailureKind.parity_unsupported)


def test_a_forward_that_ends_the_process_leaves_no_result(tmp_path):
    with pytest.raises(SystemExit):
        run_export(faulty_models.make_spec(), tmp_path, faulty_models.Exits(), threads=1)
    assert not (tmp_path / "result.json").exists()


# --- what an earlier export left


def test_a_failed_export_leaves_no_model_of_an_earlier_one(copied):
    path = copied.directory.path
    result = run_export(faulty_models.make_spec(), path, faulty_models.Raises(), threads=1)
    assert copied.directory.read_result() == result
    assert (result.status, result.files, result.outputs, result.cases) == (Status.failed, [], [], [])
    assert not copied.directory.model.exists()
    assert not copied.directory.model_data.exists()
    assert copied.directory.report.read_text().startswith("# tiny: failed")


def test_an_export_of_small_weights_leaves_no_data_file_of_an_earlier_one(copied):
    result = passed(faulty_models.Doubles(), copied.directory.path)
    assert [file.path for file in result.files] == ["model.onnx"]
    assert not copied.directory.model_data.exists()


def test_a_spec_that_contradicts_itself_touches_nothing(copied, tmp_path):
    before = copied.directory.result.read_bytes()
    spec = faulty_models.make_spec()
    spec.export.opset_version = 29
    for path in (copied.directory.path, tmp_path / "new"):
        with pytest.raises(ConfigError, match="opset_version: 29"):
            run_export(spec, path, faulty_models.Doubles())
    assert copied.directory.result.read_bytes() == before
    assert copied.directory.model.exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_source_that_json_cannot_hold_is_a_config_error(tmp_path, value):
    spec = faulty_models.make_spec()
    spec.model.source["limit"] = value
    with pytest.raises(ConfigError, match=r"model\.source"):
        run_export(spec, tmp_path / "new", faulty_models.Doubles())


# --- what passes


def test_dropout_in_train_mode_is_put_into_eval(tmp_path):
    module = faulty_models.DropsOut().train()
    passed(module, tmp_path)
    assert not module.training
    assert not module.dropout.training


def test_a_forward_that_writes_to_its_input_passes(tmp_path):
    result = passed(faulty_models.WritesToItsInput(), tmp_path)
    assert [record.name for record in result.outputs] == ["output"]
    (y,) = run_file(ExportDirectory(tmp_path), x=np.full((1, 8), 3, np.float32)).values()
    assert y.tolist() == [[7.0] * 8]


def test_nan_that_was_declared_passes(tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(nonfinite=True)})
    result = passed(faulty_models.TakesLogarithm(), tmp_path, spec)
    assert result.dims[0].proven_sizes == [1, 2, 4, 5, 7, 16]


def test_weights_from_a_file_are_those_that_are_exported_and_proven(tmp_path):
    weights = {"linear.weight": torch.full((16, 8), 0.5), "linear.bias": torch.arange(16.0)}
    save_file(weights, tmp_path / "weights.safetensors")
    spec = faulty_models.make_spec(weights=str(tmp_path / "weights.safetensors"))
    passed(None, tmp_path / "out", spec)
    (y,) = run_file(ExportDirectory(tmp_path / "out"), x=np.ones((2, 8), np.float32)).values()
    np.testing.assert_array_equal(y, np.tile(np.arange(16, dtype=np.float32) + 4, (2, 1)))


def test_a_spec_alone_is_built_and_exported(tmp_path):
    result = passed(None, tmp_path, faulty_models.make_spec(seed=5))
    assert result.num_parameters == 144
    assert result.cases[0].seed == 5


def test_none_among_the_outputs_is_left_out_and_one_tensor_given_twice_is_two(tmp_path):
    result = passed(faulty_models.ReturnsTuple(), tmp_path)
    assert [record.name for record in result.outputs] == ["output_0", "output_2", "output_3"]
    found = run_file(ExportDirectory(tmp_path), x=np.full((2, 8), 3, np.float32))
    assert {name: float(value[0, 0]) for name, value in found.items()} == {"output_0": 6, "output_2": 6, "output_3": 4}


def test_a_tuples_outputs_take_the_declared_names_in_order(tmp_path):
    spec = faulty_models.make_spec(outputs={name: Output(shape=["n", 8]) for name in ("c", "b", "a")})
    passed(faulty_models.ReturnsTuple(), tmp_path, spec)
    found = run_file(ExportDirectory(tmp_path), x=np.full((2, 8), 3, np.float32))
    assert {name: float(value[0, 0]) for name, value in found.items()} == {"c": 6, "b": 6, "a": 4}


@pytest.mark.parametrize("declared", [(), ("nested_last", "x_out", "first")])
def test_a_dicts_outputs_are_named_by_their_keys_in_whatever_order_they_are_declared(tmp_path, declared):
    spec = faulty_models.make_spec(outputs={name: Output() for name in declared})
    result = passed(faulty_models.ReturnsDict(), tmp_path, spec)
    # The key x is also the name of the input.
    assert [(record.name, record.shape) for record in result.outputs] == [
        ("first", ["n", 8]),
        ("x_out", ["n", 8]),
        ("nested_last", ["n"]),
    ]
    found = run_file(ExportDirectory(tmp_path), x=np.full((2, 8), 5, np.float32))
    assert {name: float(value.flat[0]) for name, value in found.items()} == {"first": 10, "x_out": 15, "nested_last": 5}


def test_two_keys_that_come_to_one_name_are_never_given_to_one_output(tmp_path):
    result = export_module(faulty_models.ReturnsLikeNamedKeys(), tmp_path)
    names = [record.name for record in result.outputs]
    # Refused as interface_mismatch, or told apart; never a name out of the graph's inside.
    assert "mul" not in names
    assert result.status is Status.failed or all(name.startswith("a_b") for name in names)


@pytest.mark.parametrize("optimize", ["none", "default", ["identities", "cse"]])
def test_an_input_that_is_returned_as_it_came_is_an_output(tmp_path, optimize):
    spec = faulty_models.make_spec()
    spec.export.optimize = optimize
    result = passed(faulty_models.ReturnsItsInput(), tmp_path, spec)
    assert [record.name for record in result.inputs] == ["x"]
    assert [record.name for record in result.outputs] == ["output_0", "output_1"]
    found = run_file(ExportDirectory(tmp_path), x=np.full((1, 8), 3, np.float32))
    assert [float(value[0, 0]) for value in found.values()] == [3, 6]


class ReturnsInnerNames(nn.Module):
    """Its keys are the names that the graph's inner values have, each the other's."""

    def forward(self, x):
        return {"mul_1": x * 2, "mul": x * 3, "add": (x + 1) * 4}


def test_outputs_may_have_the_names_of_inner_values(tmp_path):
    result = passed(ReturnsInnerNames(), tmp_path)
    assert [record.name for record in result.outputs] == ["mul_1", "mul", "add"]
    found = run_file(ExportDirectory(tmp_path), x=np.ones((1, 8), np.float32))
    assert {name: float(value[0, 0]) for name, value in found.items()} == {"mul_1": 2, "mul": 3, "add": 8}


class ReturnsItsBuffer(nn.Module):
    """An output that no input decides."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x):
        return {"y": x * 2, "table": self.table}


def test_a_buffer_that_is_returned_is_an_output(tmp_path):
    result = passed(ReturnsItsBuffer(), tmp_path)
    assert [(record.name, record.shape) for record in result.outputs] == [("y", ["n", 8]), ("table", [3])]


def test_inputs_come_in_declared_order_not_in_forwards(tmp_path):
    spec = faulty_models.make_spec(inputs={"b": Input(["n", 8]), "a": Input(["n", 8])})
    result = passed(faulty_models.Subtracts(), tmp_path, spec)
    assert [record.name for record in result.inputs] == ["b", "a"]
    ones = np.ones((2, 8), np.float32)
    (y,) = run_file(ExportDirectory(tmp_path), a=ones, b=10 * ones).values()
    assert y[0, 0] == -19


def test_inputs_may_share_a_dim(tmp_path):
    result = passed(faulty_models.Subtracts(), tmp_path, faulty_models.make_spec(inputs=TWO))
    assert [record.shape for record in (*result.inputs, *result.outputs)] == [["n", 8]] * 3
    assert result.dims[0].proven_sizes == [1, 2, 4, 5, 7, 16]


class SumsOverBoth(nn.Module):
    """Two symbolic axes of one tensor, and one of them gone in the output."""

    def forward(self, x):
        return x.sum(1) / x.shape[1]


def test_two_dims_of_one_input_are_proven_each_on_its_own(tmp_path):
    dims = {"n": Dim(1, 16, 4), "m": Dim(2, 9, 5)}
    spec = faulty_models.make_spec(inputs={"x": Input(["n", "m"])}, dims=dims, outputs={"y": Output(shape=["n"])})
    result = passed(SumsOverBoth(), tmp_path, spec)
    assert {dim.name: dim.proven_sizes for dim in result.dims} == {"n": [1, 2, 4, 5, 7, 16], "m": [2, 5, 6, 8, 9]}


def test_whole_numbers_and_truth_values_are_inputs_and_outputs(tmp_path):
    inputs = {
        "ids": Input(["n", 8], DType.int64, Fill(FillKind.randint, -(2**40), 2**40)),
        "mask": Input(["n", 8], DType.bool, Fill(FillKind.randint, 0, 2)),
    }
    result = passed(faulty_models.Gathers(), tmp_path, faulty_models.make_spec(inputs=inputs))
    assert [(record.name, record.dtype) for record in result.inputs] == [("ids", "int64"), ("mask", "bool")]
    assert [record.dtype for record in result.outputs] == ["int64", "bool"]
    assert result.max_abs_diff == 0


@pytest.mark.parametrize("dtype", [DType.float16, DType.float64, DType.uint8])
def test_an_input_may_have_another_dtype(tmp_path, dtype):
    spec = faulty_models.make_spec(inputs={"x": Input(["n", 8], dtype, Fill(FillKind.arange))})
    result = passed(faulty_models.Doubles(), tmp_path, spec)
    assert (result.inputs[0].dtype, result.outputs[0].dtype) == (dtype.value, dtype.value)


def test_a_model_without_dims_is_proven_at_its_one_size(tmp_path):
    result = passed(faulty_models.Doubles(), tmp_path, faulty_models.make_spec(inputs={"x": Input([2, 8])}, dims={}))
    assert (result.inputs[0].shape, result.dims, len(result.cases)) == ([2, 8], [], 1)


def test_an_example_of_one_does_not_fix_the_dim(tmp_path):
    result = passed(faulty_models.Perceptron(), tmp_path, faulty_models.make_spec(dims={"n": Dim(1, 16, 1)}))
    assert result.dims[0].proven_sizes == [1, 2, 16]
    assert result.inputs[0].shape == ["n", 8]


@pytest.mark.parametrize("opset", [18, 25])
def test_the_file_has_the_opset_that_was_asked_for(tmp_path, opset):
    spec = faulty_models.make_spec()
    spec.export.opset_version = opset
    passed(faulty_models.Perceptron(), tmp_path, spec)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset


class TakesMeans(nn.Module):
    """An operator whose form changed with opset 18, and which is not converted back."""

    def forward(self, x):
        return x.mean(-1)


class Activates(nn.Module):
    """An operator of its own from opset 20 on, which torch writes into a file of 18 where it cannot go to 26."""

    def forward(self, x):
        return nn.functional.gelu(x)


@pytest.mark.parametrize(("module", "opset"), [(faulty_models.Perceptron, 17), (faulty_models.Perceptron, 26)])
def test_another_opset_is_tried_and_passes_where_the_file_comes_out_as_asked(tmp_path, module, opset):
    spec = faulty_models.make_spec()
    spec.export.opset_version = opset
    passed(module(), tmp_path, spec)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset


@pytest.mark.parametrize(("module", "opset"), [(TakesMeans, 17), (TakesMeans, 7), (Activates, 26)])
def test_another_opset_that_the_exporter_does_not_reach_fails_and_says_so(tmp_path, module, opset):
    spec = faulty_models.make_spec()
    spec.export.opset_version = opset
    failure = failed(module(), tmp_path, spec)
    assert (failure.step, failure.kind) == (Step.check, FailureKind.opset_mismatch)
    assert failure.cause.startswith(f"asked for opset {opset}, the file says 18: ")


class FoldsConstants(nn.Module):
    """Something for the optimizer to do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x):
        return x + (self.table * 2 + 1).sqrt()


def test_optimizing_is_a_choice(tmp_path):
    nodes = {}
    for optimize in ("none", "default"):
        spec = faulty_models.make_spec()
        spec.export.optimize = optimize
        result = passed(FoldsConstants(), tmp_path / optimize, spec)
        nodes[optimize] = (result.num_nodes_captured, result.num_nodes)
    captured, kept = nodes["none"]
    assert captured == kept
    assert nodes["default"][0] == captured
    assert nodes["default"][1] < captured


# --- what a result tells


def test_a_result_tells_what_was_found(perceptron):
    result = perceptron.result
    assert (result.id, result.status, result.schema_version) == ("tiny", Status.passed, 1)
    assert result.num_parameters == 144
    assert result.op_counts == {"Gemm": 1, "Relu": 1}
    assert result.num_nodes == 2
    assert 0 < result.latency_s < 10
    assert result.max_abs_diff < 1e-5
    assert result.started_at < result.ended_at
    assert result.started_at.endswith("+00:00")
    # Two clocks: steps are timed by the steady one.
    assert 0 < sum(record.duration_s for record in result.steps) < result.duration_s + 0.1
    assert result.versions["torch"].startswith("2.")


def test_steps_are_announced_in_order_and_threads_are_set(tmp_path):
    begun = []
    run_export(faulty_models.make_spec(), tmp_path, faulty_models.Doubles(), threads=1, on_step=begun.append)
    assert begun == STEPS
    assert torch.get_num_threads() == 1


def test_an_export_leaves_its_seven_files_and_no_other(perceptron):
    assert sorted(path.name for path in perceptron.directory.path.iterdir()) == [
        "graph.html",
        "model.onnx",
        "model.onnx.data",
        "report.html",
        "report.md",
        "result.json",
        "spec.json",
    ]


def test_a_directory_that_a_batch_published_is_not_written_to(tmp_path):
    for name in ("result.json", "fingerprint.json", "model.onnx"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="holds an export that a batch published"):
        run_export(faulty_models.make_spec(), tmp_path, nn.Linear(8, 2))
    assert (tmp_path / "model.onnx").read_text() == "{}"


def test_an_output_that_is_no_tensor_is_named(tmp_path):
    failure = failed(faulty_models.ReturnsNumber(), tmp_path)
    assert (failure.step, failure.kind) == (Step.capture, FailureKind.interface_mismatch)
    assert failure.cause == "output 1 of forward is 5, of type int, not a tensor"
