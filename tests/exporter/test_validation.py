"""Each contradiction within a spec is a line with its key, before anything starts."""

import faulty_models
import onnx
import pytest

from exporter.errors import ConfigError, ExitCode
from exporter.spec import Device, Dim, DType, Fill, FillKind, Input, Output, PassName
from exporter.validation import OPSET_RANGE, find_problems, require_valid


def problems_after(change):
    spec = faulty_models.make_spec()
    change(spec)
    return list(find_problems(spec))


def test_a_valid_spec_has_no_problem():
    spec = faulty_models.make_spec()
    assert list(find_problems(spec)) == []
    require_valid(spec)


def test_all_problems_are_told_at_once():
    spec = faulty_models.make_spec()
    spec.id = ""
    spec.export.opset_version = 29
    spec.precision.rtol = -1
    with pytest.raises(ConfigError) as caught:
        require_valid(spec)
    keys = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["id", "export.opset_version", "precision.rtol"]
    assert caught.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "_a", "a b", "a\n", "ä", "a" * 101, "a\0"])
def test_a_name_that_is_no_good_directory_is_refused(name):
    def change(spec):
        spec.id = name
        spec.model.name = name

    first, second = problems_after(change)
    assert first.startswith(f"id: {name!r} must be")
    assert second.startswith(f"model.name: {name!r} must be")


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_D", "a" * 100])
def test_a_plain_name_is_accepted(name):
    assert problems_after(lambda spec: setattr(spec, "id", name)) == []


@pytest.mark.parametrize(("opset", "ok"), [(0, False), (1, True), (17, True), (28, True), (29, False), (-1, False)])
def test_an_opset_that_onnx_does_not_have_is_refused(opset, ok):
    found = problems_after(lambda spec: setattr(spec.export, "opset_version", opset))
    assert found == ([] if ok else [f"export.opset_version: {opset} is not within 1 to 28"])
    assert (1, onnx.defs.onnx_opset_version()) == OPSET_RANGE


@pytest.mark.parametrize(
    "value", ["none", "default", "cse", [], ["cse"], ["fold_constants", "cse", "fold_constants"], list(PassName)]
)
def test_the_passes_may_be_a_word_or_a_list(value):
    assert problems_after(lambda spec: setattr(spec.export, "optimize", value)) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("defualt", "there is no pass 'defualt'; did you mean 'default'? There are: none, default, inline, "),
        (
            ["cse", "fold_constant"],
            "there is no pass 'fold_constant'; did you mean 'fold_constants'? There are: none, ",
        ),
        (["none", "cse"], "none does not go into a list; write none alone, or the passes alone"),
        ([3], "there is no pass 3; There are: "),
        (True, "True is neither none, default nor a list of passes: default, inline, "),
        (None, "None is neither none, default nor a list of passes: "),
        ({"cse": 1}, "{'cse': 1} is neither none, default nor a list of passes: "),
    ],
)
def test_a_pass_that_there_is_not_is_refused_with_the_nearest_right_name(value, problem):
    (found,) = problems_after(lambda spec: setattr(spec.export, "optimize", value))
    assert found.startswith(f"export.optimize: {problem}")


def test_the_comparison_with_torchscript_is_for_the_cpu():
    def change(spec):
        spec.export.compare_torchscript = True
        spec.export.device = Device.cuda

    (found,) = problems_after(change)
    assert found == "export.compare_torchscript: compares on the CPU alone; leave it out with export.device=cuda"


@pytest.mark.parametrize("key", ["rtol", "atol", "max_rel_l2"])
@pytest.mark.parametrize("value", [-1e-9, float("inf"), float("nan")])
def test_a_tolerance_that_is_no_tolerance_is_refused(key, value):
    found = problems_after(lambda spec: setattr(spec.precision, key, value))
    assert found == [f"precision.{key}: {value} must be a number of at least 0"]


def test_a_tolerance_of_zero_is_accepted():
    assert problems_after(lambda spec: setattr(spec.precision, "rtol", 0.0)) == []


@pytest.mark.parametrize("key", ["rtol", "atol", "max_rel_l2"])
def test_one_gate_is_enough_and_none_is_refused(key):
    def leave(spec, kept):
        for name in {"rtol", "atol", "max_rel_l2"} - kept:
            setattr(spec.precision, name, None)

    assert problems_after(lambda spec: (setattr(spec.precision, key, 0.5), leave(spec, {key}))) == []
    (problem,) = problems_after(lambda spec: leave(spec, set()))
    assert problem.startswith("precision: rtol, atol and max_rel_l2 are all null")


def test_an_element_limit_below_one_is_refused():
    found = problems_after(lambda spec: setattr(spec.parity, "max_input_elements", 0))
    assert found == ["parity.max_input_elements: 0 must be at least 1"]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_a_generator_does_not_take_is_refused(seed):
    (problem,) = problems_after(lambda spec: setattr(spec.model, "seed", seed))
    assert problem.startswith(f"model.seed: {seed} ")


@pytest.mark.parametrize("table", [{}, {"size": 3}, {"_target_": 3}])
def test_a_translation_table_without_target_is_refused(table):
    (problem,) = problems_after(lambda spec: setattr(spec.export, "custom_translation_table", table))
    assert problem.startswith("export.custom_translation_table: the key _target_ is missing")


def test_a_source_may_be_empty_only_where_the_module_is_there():
    spec = faulty_models.make_spec()
    spec.model.source = {}
    assert list(find_problems(spec, has_module=True)) == []
    assert [problem[:13] for problem in find_problems(spec)] == ["model.source:"]
    spec.model.source = {"hidden": 3}
    assert [problem[:13] for problem in find_problems(spec, has_module=True)] == ["model.source:"]


def test_a_source_without_target_is_refused():
    (problem,) = problems_after(lambda spec: spec.model.source.pop("_target_"))
    assert problem.startswith("model.source: the key _target_ is missing")


def test_a_model_without_inputs_is_refused():
    def change(spec):
        spec.model.inputs = {}
        spec.model.dims = {}

    assert problems_after(change) == ["model.inputs: is empty; forward needs at least one tensor"]


@pytest.mark.parametrize(
    ("dim", "problem"),
    [
        (Dim(1, 4, 2, 0), "model.dims.n.multiple_of: 0 must be at least 1"),
        (Dim(2, 7, 4, 2), "model.dims.n.max: 7 is no multiple of 2"),
        (Dim(4, 4, 4), "model.dims.n: min 4 must be less than max 4; a fixed size is a number in the shape"),
        (Dim(5, 4, 4), "model.dims.n: min 5 must be less than max 4; a fixed size is a number in the shape"),
        (Dim(2, 4, 1), "model.dims.n.example: 1 is not within min 2 and max 4"),
        (Dim(2, 4, 5), "model.dims.n.example: 5 is not within min 2 and max 4"),
    ],
)
def test_a_dim_without_a_range_is_refused(dim, problem):
    assert problems_after(lambda spec: spec.model.dims.update(n=dim)) == [problem]


def test_a_dim_may_begin_at_zero_but_not_below():
    assert problems_after(lambda spec: spec.model.dims.update(n=Dim(0, 4, 2))) == []
    problem, _ = problems_after(lambda spec: spec.model.dims.update(n=Dim(-1, 4, 2)))
    assert problem == "model.dims.n.min: -1 must be at least 0"


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (["n", "n - 2"], "'n - 2' is -1 where min is taken of each dim"),
        (["n", "16//(n - 1)"], "'16//(n - 1)' divides by zero where min is taken of each dim"),
        (["n", "max(n, 2)"], "'max(n, 2)' is no size: only whole numbers, dims and + - * // % are"),
        (["n", "8"], "'8' names no dim; write the number"),
        (["n", "2*m"], "dim 'm' is not declared; declare it under model.dims (n)"),
    ],
)
def test_arithmetic_that_gives_no_size_is_refused(shape, problem):
    def change(spec):
        spec.model.inputs["x"].shape = shape

    assert problems_after(change) == [f"model.inputs.x.shape: {problem}"]


def test_paths_constants_factories_and_files_are_held_against_each_other():
    def change(spec):
        spec.model.inputs["x"].argument = "x[1]"
        spec.model.inputs["x"].fill = Fill(kind=FillKind.file, path="data.csv")
        spec.model.input_factory = {"high": 3}

    assert problems_after(change) == [
        "model.inputs, model.constants: x[0] is missing; items are counted from 0 without a gap",
        "model.input_factory: the key _target_ is missing: the dotted path of a function",
        "model.inputs.x.fill.path: 'data.csv' is not a .npy, .npz, .safetensors file",
    ]
    (problem,) = problems_after(lambda spec: setattr(spec.model.inputs["x"].fill, "key", "a"))
    assert problem == "model.inputs.x.fill: path and key are for kind: file"


@pytest.mark.parametrize("dim", [Dim(1, 2, 1), Dim(1, 2, 2)])
def test_an_example_may_be_the_minimum_or_the_maximum(dim):
    assert problems_after(lambda spec: spec.model.dims.update(n=dim)) == []


@pytest.mark.parametrize("name", ["n-1", "2n", "", "n m"])
def test_a_dim_needs_a_name_that_is_an_identifier(name):
    def change(spec):
        spec.model.dims = {name: Dim(1, 4, 2)}
        spec.model.inputs = {"x": Input(shape=[name])}

    assert problems_after(change)[0].startswith(f"model.dims.{name}: {name!r} must be a name")


def test_a_dim_that_no_input_has_is_refused():
    def change(spec):
        spec.model.dims["m"] = Dim(1, 4, 2)
        spec.model.outputs["y"] = Output(shape=["m"])

    assert problems_after(change) == ["model.dims.m: no input's shape has this dim"]


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        (-1, "-1 is negative"),
        (True, "True is neither a whole number nor the name of a dim"),
        (1.5, "1.5 is neither a whole number nor the name of a dim"),
        (None, "None is neither a whole number nor the name of a dim"),
        ("nn", "dim 'nn' is not declared; did you mean 'n'?"),
        ("zzz", "dim 'zzz' is not declared; declare it under model.dims (n)"),
    ],
)
def test_an_axis_that_is_no_size_is_refused_in_inputs_and_outputs(axis, problem):
    def change(spec):
        spec.model.inputs["x"].shape.append(axis)
        spec.model.outputs["y"] = Output(shape=[axis])

    assert problems_after(change) == [f"model.inputs.x.shape: {problem}", f"model.outputs.y.shape: {problem}"]


def test_an_output_named_as_an_input_is_refused():
    found = problems_after(lambda spec: spec.model.outputs.update(x=Output()))
    assert found == ["model.outputs.x: an input has the same name"]


@pytest.mark.parametrize(
    ("dtype", "fill", "problem"),
    [
        (DType.int64, Fill(), ".kind: normal does not fit int64"),
        (DType.bool, Fill(), ".kind: normal does not fit bool"),
        (DType.uint8, Fill(FillKind.uniform, 0, 3), ".kind: uniform does not fit uint8"),
        (DType.float32, Fill(FillKind.uniform, 1, 1), ": low 1 must be less than high 1"),
        (DType.int64, Fill(FillKind.randint, 2, 1), ": low 2 must be less than high 1"),
        (DType.int64, Fill(FillKind.randint, 0, 1.5), ": randint needs whole numbers for low and high"),
    ],
)
def test_a_fill_that_does_not_fit_is_refused(dtype, fill, problem):
    (found,) = problems_after(lambda spec: spec.model.inputs.update(x=Input(["n", 8], dtype, fill)))
    assert found.startswith(f"model.inputs.x.fill{problem}")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    ("kind", "key"), [(FillKind.constant, "value"), (FillKind.uniform, "high"), (FillKind.randint, "low")]
)
def test_a_fill_that_json_cannot_hold_is_refused(kind, key, value):
    def change(spec):
        spec.model.inputs["x"].fill = Fill(kind, **{key: value})

    found = problems_after(change)
    assert len(found) == 1
    assert found[0].startswith("model.inputs.x.fill")


@pytest.mark.parametrize("dtype", list(DType))
def test_these_fills_fit_every_dtype(dtype):
    for kind in (FillKind.randint, FillKind.arange, FillKind.ones, FillKind.zeros, FillKind.constant):
        fill = Fill(kind)
        assert problems_after(lambda spec, fill=fill: spec.model.inputs.update(x=Input(["n", 8], dtype, fill))) == []


@pytest.mark.parametrize("value", [0.5, -1.0, float("inf"), float("nan")])
def test_a_limit_on_noise_that_pytorch_itself_would_miss_is_refused(value):
    found = problems_after(lambda spec: setattr(spec.parity, "max_noise_ratio", value))
    assert found == [f"parity.max_noise_ratio: {value} must be a number of at least 1"]


@pytest.mark.parametrize("value", ["", "a" * 63, "g" * 64, "sha256:" + "a" * 64])
def test_a_hash_that_is_none_is_refused(value):
    def change(spec):
        spec.model.weights = "w.safetensors"
        spec.model.weights_sha256 = value

    (problem,) = problems_after(change)
    assert problem.startswith(f"model.weights_sha256: {value!r} must be 64 hexadecimal digits")


def test_a_hash_of_no_weights_is_refused():
    (problem,) = problems_after(lambda spec: setattr(spec.model, "weights_sha256", "aB" * 32))
    assert problem == "model.weights_sha256: there is no model.weights that could have it"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            Input(["a"], DType.int8, Fill(FillKind.constant, value=300)),
            "none of the whole numbers of int8, -128 to 127",
        ),
        (Input(["a"], DType.int64, Fill(FillKind.constant, value=2.7)), "none of the whole numbers of int64"),
        (Input(["a"], DType.uint8, Fill(FillKind.randint, low=-5, high=5)), "are beyond uint8, 0 to 255"),
        (Input(["a"], DType.bool, Fill(FillKind.randint, low=0, high=3)), "are beyond bool, 0 to 1"),
        (Input(["a"], DType.int64, Fill(FillKind.randint, low=0, high=1e30)), "are beyond int64"),
        (Input(["a", "a - 7"], DType.float32), "'a - 7' is -2 where min is taken"),
        (Input(["a", "10//(a - 8) + 20"], DType.float32), "divides by zero at a=8"),
        (Input(["a", "(a - 9)*(a - 6)*4 + 2"], DType.float32), "is -6 at a=7"),
        (Input(["a", 2**40], DType.float32), "is too long for an axis"),
    ],
)
def test_what_no_tensor_can_have_is_refused(item, words):
    def change(spec):
        spec.model.dims = {"a": Dim(min=5, max=64, example=7)}
        spec.model.inputs = {"x": item}
        spec.model.outputs = {}

    (problem,) = problems_after(change)
    assert words in problem


def test_the_ends_of_each_dtype_are_no_problem():
    def change(spec):
        spec.model.dims = {}
        spec.model.outputs = {}
        spec.model.inputs = {
            "a": Input([1], DType.int8, Fill(FillKind.randint, low=-128, high=128)),
            "b": Input([1], DType.uint8, Fill(FillKind.constant, value=255)),
            "c": Input([1], DType.bool, Fill(FillKind.randint, low=0, high=2)),
        }

    assert problems_after(change) == []


def test_a_range_that_python_cannot_count_is_refused():
    def change(spec):
        spec.model.dims["n"] = Dim(min=1, max=10**19, example=4)

    assert problems_after(change) == [f"model.dims.n.max: {10**19} must be less than 2**40"]


def test_numbers_that_json_has_no_word_for_are_refused_in_constants_and_factories_too():
    def change(spec):
        spec.model.constants = {"scale": float("nan")}
        spec.model.input_factory = {"_target_": "a.b", "high": float("inf")}

    keys = [problem.partition(":")[0] for problem in problems_after(change)]
    assert keys == ["model.constants.scale", "model.input_factory.high"]


@pytest.mark.parametrize("name", ["", " ", "a\n"])
def test_a_name_that_onnx_does_not_have_is_refused(name):
    def change(spec):
        spec.model.outputs = {name: Output()}

    assert problems_after(change) == [f"model.outputs: {name!r} is no name"]
