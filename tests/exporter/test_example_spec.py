"""Specs from example arguments."""

import pytest
import torch
from torch import nn

from exporter import Dim, DType, Fill, FillKind, Input, Output, make_spec
from exporter.cases import choose_cases
from exporter.conductor import run_export
from exporter.errors import ConfigError
from exporter.inputs import make_inputs
from exporter.plain_data import from_plain, to_plain

IDS = torch.tensor([[3, 9, 4], [5, 5, 8]])


class Embeds(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids, states, mask=None, scale=1.0):
        return {"embedded": (self.table(ids) + states["first"][1]) * scale}


STATES = {"first": (None, torch.zeros(2, 3, 4))}
SHAPES = {"ids": {0: "batch", 1: "seq"}, "states": {"first": (None, ["batch", "seq", None])}}


def test_names_dtypes_shapes_ranges_and_constants_come_from_the_example(tmp_path):
    module = Embeds()
    spec = make_spec(module, (IDS, STATES), {"scale": 2.0}, dynamic_shapes=SHAPES, dims={"seq": Dim(1, 8, 3)})
    assert spec.id == spec.model.name == "Embeds"
    assert spec.model.inputs == {
        "ids": Input(shape=["batch", "seq"], dtype=DType.int64, fill=Fill(kind=FillKind.randint, low=3, high=10)),
        "states_first_1": Input(shape=["batch", "seq", 4], argument="states.first(1)"),
    }
    assert spec.model.constants == {"states.first(0)": None, "scale": 2.0}
    assert spec.model.dims == {"batch": Dim(min=1, max=4, example=2), "seq": Dim(min=1, max=8, example=3)}
    assert from_plain(type(spec), to_plain(spec)) == spec
    result = run_export(spec, tmp_path, module, threads=1)
    assert result.failure is None
    assert [one.name for one in result.outputs] == ["embedded"]


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_a_range_that_is_not_given_holds_the_example_and_is_captured_at_no_size_that_torch_fixes(size, tmp_path):
    module = nn.ReLU()
    spec = make_spec(module, (torch.zeros(size, 3),), dynamic_shapes=({0: "n"},))
    dim = spec.model.dims["n"]
    assert dim.min <= size <= dim.max
    assert dim.example == max(2, size)
    assert run_export(spec, tmp_path, module, threads=1).failure is None


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (torch.tensor([2, 2, 2]), {2}),
        (torch.tensor([0, 255], dtype=torch.uint8), set(range(256))),
        (torch.tensor([2**63], dtype=torch.uint64), None),
        (torch.tensor([True]), {False, True}),
        (torch.zeros(0, dtype=torch.int32), None),
        (torch.zeros(2, dtype=torch.bfloat16), None),
        (torch.zeros(2, dtype=torch.complex64), None),
    ],
)
def test_values_are_drawn_from_the_range_that_the_example_has(tensor, values):
    class Takes(nn.Module):
        def forward(self, x):
            return x

    spec = make_spec(Takes(), (tensor,))
    (made,) = make_inputs(spec.model, choose_cases(spec)[0]).values()
    assert (made.dtype, made.shape) == (tensor.dtype, tensor.shape)
    if values is not None:
        assert set(made.tolist()) <= values


def test_fills_outputs_and_the_rest_are_taken():
    fills = {"ids": Fill(kind=FillKind.zeros)}
    spec = make_spec(Embeds(), (IDS, STATES), fills=fills, outputs=["embedded"], name="my-embeds")
    assert spec.model.inputs["ids"].fill.kind is FillKind.zeros
    assert spec.model.outputs == {"embedded": Output()}
    assert spec.id == "my-embeds"


class Holder:
    pass


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (IDS, {}, r"args: is a Tensor; give a tuple: \(ids, states, mask, scale,\)"),
        ((IDS,), {}, r"forward\(ids, states, mask, scale\): missing a required argument: 'states'"),
        ((IDS, Holder()), {}, "states: a Holder is neither a tensor, a number"),
        ((IDS, {"a b": IDS}), {}, "states: the key 'a b' must be of letters"),
        ((IDS, [IDS.to(torch.float8_e4m3fnuz)]), {}, r"states\[0\]: ONNX Runtime takes no float8_e4m3fnuz"),
        ((IDS, STATES), {"dynamic_shapes": {"idz": {0: "n"}}}, "'idz' is no argument in the example; did you mean"),
        ((IDS, STATES), {"dynamic_shapes": ({0: "n"},)}, "dynamic_shapes: has 1 entries for 2 arguments"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": {2: "n"}}}, "ids has no axis 2; it has 2"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": ["n"]}}, "ids has 2 axes, and 1 are given"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": "n"}}, "ids is a tensor; give {0: 'batch'}"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": ["n", "n"]}}, "'n' is 2 before, and 3 in ids"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": {0: torch.export.Dim("n")}}}, "axis 0: .* is neither a name nor"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": {0: "n +"}}}, "dynamic_shapes: ids: 'n .' is no size"),
        ((IDS, STATES), {"dynamic_shapes": {"ids": {0: "2*n"}}}, "dims: 'n' stands in arithmetic only"),
        ((IDS, STATES), {"dynamic_shapes": {"states": {"fist": None}}}, "states has no 'fist' in the example; did you"),
        ((IDS, STATES), {"dynamic_shapes": {"states": {"first": [None]}}}, r"states.first is a tuple of 2; give as"),
        ((IDS, STATES), {"dims": {"n": Dim(1, 2, 1)}}, "dims: 'n' is not in dynamic_shapes"),
        ((IDS, STATES), {"fills": {"isd": Fill()}}, "fills: 'isd' is no input; did you mean 'ids'"),
        ((IDS, STATES), {"name": "a/b"}, "model.name: 'a/b' must be"),
        ((None, None), {}, "model.inputs: is empty"),
    ],
)
def test_an_example_that_makes_no_spec_is_refused_in_one_line(args, options, message):
    with pytest.raises(ConfigError, match=message):
        make_spec(Embeds(), args, **options)


def test_making_a_spec_leaves_the_module_alone():
    module = Embeds().train()
    make_spec(module, (IDS, STATES))
    assert module.training
