"""What forward can take and give back, each exported for real: nesting, None, scalars, dtypes, sizes, names."""

import dataclasses
from typing import NamedTuple

import faulty_models
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter import Dim, DType, Fill, FillKind, Input, Status
from exporter.cases import Case
from exporter.conductor import run_export
from exporter.errors import FailureKind, StepError
from exporter.inputs import make_inputs

N = {"n": Dim(min=1, max=16, example=4)}


def run(module, directory, inputs, dims=None, outputs=None, **model):
    spec = faulty_models.make_spec(inputs=inputs, dims=N if dims is None else dims, outputs=outputs, **model)
    return run_export(spec, directory, module, threads=1)


def passed(*args, **kwargs):
    result = run(*args, **kwargs)
    assert result.failure is None
    assert result.status is Status.passed
    return result


def shapes(records):
    return {record.name: record.shape for record in records}


class Nested(nn.Module):
    """Takes a dict, a list of tuples, None and a number; gives back a list with None in a dict."""

    def forward(self, images, past, mask=None, scale=1.0):
        assert isinstance(past, list)
        assert isinstance(past[0], tuple)
        assert mask is None
        return {"sum": images["left"] * scale + past[0][1], "rest": [images["right"], None, past[0][0] * 2]}


def test_nested_arguments_none_and_scalars_pass_and_keep_their_declared_names_and_order(tmp_path):
    inputs = {
        "value": Input(shape=["n", 3], argument="past[0](1)"),
        "right": Input(shape=["n", 3], argument="images.right"),
        "key": Input(shape=["n", 3], argument="past[0](0)"),
        "left": Input(shape=["n", 3], argument="images.left"),
    }
    result = passed(Nested(), tmp_path, inputs, constants={"mask": None, "scale": 2.5})
    assert shapes(result.inputs) == {name: ["n", 3] for name in inputs}
    assert list(shapes(result.inputs)) == list(inputs)
    assert list(shapes(result.outputs)) == ["sum", "rest_0", "rest_2"]


class ByPosition(nn.Module):
    def forward(self, table, /, *rest, bias):
        return table["x"] + rest[0] * rest[1] - bias


def test_arguments_by_position_pass_a_dict_as_the_last_of_them_too(tmp_path):
    inputs = {
        "b": Input(shape=["n", 3], argument="rest(1)"),
        "a": Input(shape=["n", 3], argument="rest(0)"),
        "bias": Input(shape=[3]),
        "x": Input(shape=["n", 3], argument="table.x"),
    }
    passed(ByPosition(), tmp_path / "a", inputs)

    class LastIsDict(nn.Module):
        def forward(self, table, /):
            return table["x"] * 2

    passed(LastIsDict(), tmp_path / "b", {"x": inputs["x"]})


@dataclasses.dataclass
class Inner:
    probabilities: torch.Tensor
    nothing: torch.Tensor | None = None


@dataclasses.dataclass
class Outer:
    logits: torch.Tensor
    inner: Inner


class ReturnsDataclass(nn.Module):
    def forward(self, x):
        return Outer(logits=x * 2, inner=Inner(probabilities=x.softmax(-1)))


def test_a_dataclass_that_torch_does_not_know_comes_out_field_by_field(tmp_path):
    module = ReturnsDataclass()
    result = passed(module, tmp_path, {"x": Input(shape=["n", 3])})
    assert list(shapes(result.outputs)) == ["logits", "inner_probabilities"]
    assert isinstance(module(torch.ones(1, 3)), Outer), "the module is as it was"


class Names(nn.Module):
    """Its weight and its operators have the names that inputs and outputs ask for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 2.0))

    def forward(self, mul, add):
        return mul * self.weight + add


def test_names_that_parameters_and_operators_have_are_given_to_inputs_and_outputs(tmp_path):
    inputs = {
        "weight": Input(shape=["n", 3], argument="add"),
        "add": Input(shape=["n", 3], argument="mul"),
    }
    result = passed(Names(), tmp_path, inputs, outputs={"mul": faulty_models.Output(shape=["n", 3])})
    assert list(shapes(result.inputs)) == ["weight", "add"]
    assert list(shapes(result.outputs)) == ["mul"]


class Casts(nn.Module):
    """Touches its input in its own dtype, and computes in float32."""

    def forward(self, x):
        return x.reshape(-1) if x.dtype.itemsize > 1 else x.to(torch.float32), x.to(torch.float32).sum(-1)


NUMBERS = [dtype for dtype in DType if not dtype.value.startswith("complex") and dtype is not DType.bool]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_dtype_goes_in_and_out(tmp_path, dtype):
    fill = Fill(kind=FillKind.randint, low=0, high=8)
    result = passed(Casts(), tmp_path, {"x": Input(shape=["n", 4], dtype=dtype, fill=fill)})
    assert result.inputs[0].dtype == dtype.value


class Complex(nn.Module):
    def forward(self, z):
        return z * (1 + 2j), (z * z.conj()).real


@pytest.mark.parametrize("dtype", [DType.complex64])
def test_complex_tensors_are_real_ones_with_a_last_axis_of_two(tmp_path, dtype):
    result = passed(Complex(), tmp_path, {"z": Input(shape=["n", 4], dtype=dtype)})
    assert shapes(result.inputs) == {"z": ["n", 4, 2]}
    assert shapes(result.outputs) == {"output_0": ["n", 4, 2], "output_1": ["n", 4]}


class Scalars(nn.Module):
    def forward(self, scale, table):
        return table * scale, scale.reshape(1), table.sum(-1)


def test_zero_dimensional_and_empty_tensors_pass(tmp_path):
    dims = {"n": Dim(min=0, max=16, example=4)}
    inputs = {"scale": Input(shape=[]), "table": Input(shape=["n", 3])}
    result = passed(Scalars(), tmp_path / "dynamic", inputs, dims)
    assert result.dims[0].proven_sizes[0] == 0
    passed(Scalars(), tmp_path / "fixed", {**inputs, "table": Input(shape=[0, 3])}, {})


class Joins(nn.Module):
    """Ties the length of `twice` to that of `once`, and leaves `more` free."""

    def forward(self, once, twice, more):
        return torch.cat([once, once], 1) + twice, torch.cat([once, more], 1)


def test_sizes_computed_from_dims_are_named_so_in_inputs_and_outputs(tmp_path):
    dims = {"n": Dim(min=1, max=8, example=2), "seq": Dim(min=1, max=32, example=6)}
    inputs = {
        "once": Input(shape=["n", "seq"]),
        "twice": Input(shape=["n", "2*seq"]),
        "more": Input(shape=["n", "seq + 1"]),
    }
    outputs = {"sum": faulty_models.Output(shape=["n", "seq*2"]), "all": faulty_models.Output(shape=["n", "2*seq + 1"])}
    result = passed(Joins(), tmp_path, inputs, dims, outputs)
    assert shapes(result.inputs) == {"once": ["n", "seq"], "twice": ["n", "2*seq"], "more": ["n", "seq + 1"]}
    assert shapes(result.outputs) == {"sum": ["n", "seq*2"], "all": ["n", "2*seq + 1"]}
    model = onnx.load(tmp_path / "model.onnx")
    names = {axis.dim_param for value in model.graph.value_info for axis in value.type.tensor_type.shape.dim}
    assert not [name for name in names if name.startswith("s") and name[1:].isdigit()], "no symbols of torch's own"


class NeedsFours(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1, 4).sum(-1)


def test_a_dim_of_multiples_is_tried_at_multiples_only(tmp_path):
    dims = {"n": Dim(min=1, max=4, example=2), "width": Dim(min=4, max=64, example=16, multiple_of=4)}
    result = passed(NeedsFours(), tmp_path, {"x": Input(shape=["n", "width"])}, dims)
    (width,) = [dim for dim in result.dims if dim.name == "width"]
    assert all(size % 4 == 0 for size in width.proven_sizes)
    assert len(width.proven_sizes) >= 4


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_inputs_from_a_file_are_repeated_and_cut_to_the_case(tmp_path, suffix):
    data = np.arange(15, dtype=np.float32).reshape(3, 5)
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        np.save(path, data)
    elif suffix == ".npz":
        np.savez(path, x=data, y=data)
    else:
        save_file({"x": torch.from_numpy(data), "y": torch.from_numpy(data.copy())}, path)
    fill = Fill(kind=FillKind.file, path=str(path))
    passed(faulty_models.Doubles(), tmp_path / "out", {"x": Input(shape=["n", 5], fill=fill)})


def make_sorted(sizes, generator, high):
    """An input factory: offsets that rise, and the length that they end at."""
    offsets = torch.randint(0, high, (sizes["n"],), generator=generator).sort().values
    return {"offsets": offsets, "last": offsets[-1].clone()}


class Differences(nn.Module):
    def forward(self, offsets, last, x):
        return (last - offsets).to(x.dtype) * x


def test_an_input_factory_makes_inputs_that_agree(tmp_path):
    inputs = {
        "offsets": Input(shape=["n"], dtype=DType.int64),
        "last": Input(shape=[], dtype=DType.int64),
        "x": Input(shape=["n"]),
    }
    inputs["offsets"].fill = inputs["last"].fill = Fill(kind=FillKind.zeros)
    factory = {"_target_": f"{faulty_models.__name__}.make_sorted", "high": 100}
    faulty_models.make_sorted = make_sorted
    result = passed(Differences(), tmp_path, inputs, input_factory=factory)
    assert all(output.num_elements for case in result.cases for output in case.outputs)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"y": torch.zeros(1)}, "returns 'y', which is no input"),
        ({"x": torch.zeros(1)}, "declared is torch.float32"),
        ({"x": 1}, "is a int, no tensor"),
        ([1], "returns a list, not a dict"),
        ({"x": torch.zeros(4, 5).to_sparse()}, "torch.sparse_coo tensor on cpu"),
    ],
)
def test_what_an_input_factory_gives_wrongly_is_named(tmp_path, returned, words):
    faulty_models.make_wrong = lambda sizes, generator: returned
    factory = {"_target_": "faulty_models.make_wrong"}
    result = run(faulty_models.Doubles(), tmp_path, {"x": Input(shape=["n", 5])}, input_factory=factory)
    assert result.failure.kind is FailureKind.input_error
    assert words in result.failure.cause


def test_a_file_without_the_array_or_of_another_rank_is_named(tmp_path):
    np.savez(tmp_path / "data.npz", a=np.zeros((2, 5), np.float32), b=np.zeros(3, np.float32))
    for key, words in ((None, "it has a, b"), ("b", "has shape [3], needed is [4, 5]")):
        fill = Fill(kind=FillKind.file, path=str(tmp_path / "data.npz"), key=key)
        result = run(faulty_models.Doubles(), tmp_path / "out", {"x": Input(shape=["n", 5], fill=fill)})
        assert result.failure.kind is FailureKind.input_error
        assert words in result.failure.cause


class Subtracts(nn.Module):
    def forward(self, x, y):
        return x * 2 - y


def test_one_tensor_that_a_factory_gives_to_two_inputs_is_two_in_the_graph(tmp_path):
    def make_shared(sizes, generator):
        shared = torch.randn(sizes["n"], 3, generator=generator)
        return {"x": shared, "y": shared}

    faulty_models.make_shared = make_shared
    inputs = {"x": Input(shape=["n", 3]), "y": Input(shape=["n", 3])}
    passed(Subtracts(), tmp_path, inputs, input_factory={"_target_": "faulty_models.make_shared"})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"x": np.ones((2, 3), np.float32), "y": np.zeros((2, 3), np.float32)})
    assert (found == 2).all()


class Flattens(nn.Module):
    def forward(self, x):
        return x.view(-1) * 2


def test_tensors_of_a_factory_are_laid_out_as_a_callers_are(tmp_path):
    faulty_models.make_expanded = lambda sizes, generator: {"x": torch.ones(1, 3).expand(sizes["n"], 3)}
    factory = {"_target_": "faulty_models.make_expanded"}
    passed(Flattens(), tmp_path, {"x": Input(shape=["n", 3])}, input_factory=factory)


class Fields(NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


class ReturnsFields(nn.Module):
    def forward(self, x):
        return Fields(x * 2, x * 3)


def test_fields_declared_in_another_order_keep_their_own_names(tmp_path):
    outputs = {name: faulty_models.Output() for name in ("hidden", "logits")}
    result = passed(ReturnsFields(), tmp_path, {"x": Input(shape=["n", 3])}, outputs=outputs)
    assert list(shapes(result.outputs)) == ["logits", "hidden"]


class TakesAnyKeyword(nn.Module):
    def forward(self, x, options=None, **others):
        return x * options["scale"][0] - others.get("bias", 0)


def test_constants_in_containers_pass(tmp_path):
    passed(TakesAnyKeyword(), tmp_path, {"x": Input(shape=["n", 3])}, constants={"options": {"scale": [2.0, 3.0]}})


def test_an_input_that_forward_takes_by_its_kwargs_alone_is_named(tmp_path):
    inputs = {"x": Input(shape=["n", 3]), "bias": Input(shape=["n", 3])}
    failure = run(TakesAnyKeyword(), tmp_path, inputs, constants={"options": {"scale": [2.0]}}).failure
    assert failure.kind is FailureKind.signature_mismatch
    assert "takes bias by its **kwargs alone" in failure.cause


class Returns(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return x * 2, self.extra(x)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (lambda x: 3, "output 1 of forward is 3, of type int"),
        (lambda x: "hi", "output 1 of forward is 'hi', of type str"),
        (lambda x: x.shape[0], "output 1 of forward is a number computed from sizes or values"),
    ],
)
def test_an_output_that_is_no_tensor_is_named(tmp_path, extra, words):
    failure = run(Returns(extra), tmp_path, {"x": Input(shape=["n", 3])}).failure
    assert failure.kind is FailureKind.interface_mismatch
    assert words in failure.cause


class DividesBySize(nn.Module):
    def forward(self, x):
        return x / (12 // x.shape[0])


def test_a_size_that_forward_itself_fails_at_is_told_as_forwards_failure(tmp_path):
    dims = {"n": Dim(min=0, max=8, example=4)}
    failure = run(DividesBySize(), tmp_path, {"x": Input(shape=["n", 3])}, dims).failure
    assert failure.kind is FailureKind.forward_error
    assert "PyTorch in case minimum (n=0): ZeroDivisionError" in failure.cause


@pytest.mark.parametrize(
    ("values", "dtype", "ok"),
    [
        ([1.0, 2.0], DType.int64, True),
        ([1.5, 2.0], DType.int64, False),
        ([300, 1], DType.int8, False),
        ([0, 1], DType.bool, True),
        ([0, 2], DType.bool, False),
        ([1j, 2], DType.float32, False),
        ([0.1, 0.2], DType.float16, True),
    ],
)
def test_a_file_whose_values_the_dtype_does_not_hold_is_refused(tmp_path, values, dtype, ok):
    np.save(tmp_path / "data.npy", np.array(values))
    item = Input(shape=["n"], dtype=dtype, fill=Fill(kind=FillKind.file, path=str(tmp_path / "data.npy")))
    model = faulty_models.make_spec(inputs={"x": item}).model
    case = Case("example", {"n": 4}, 0)
    if ok:
        assert make_inputs(model, case)["x"].dtype is getattr(torch, dtype.value)
    else:
        with pytest.raises(StepError, match="which does not hold its values"):
            make_inputs(model, case)
