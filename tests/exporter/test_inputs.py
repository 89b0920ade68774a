"""Tensors that are what was declared, and the same each time."""

import faulty_models
import pytest
import torch

from exporter.cases import Case
from exporter.inputs import make_inputs
from exporter.spec import DType, Fill, FillKind, Input

CASE = Case(name="example", sizes={"n": 200}, seed=3)
FLOATS = [DType.float16, DType.bfloat16, DType.float32, DType.float64]


def make(case=CASE, **inputs):
    return make_inputs(faulty_models.make_spec(inputs=inputs).model, case)


def make_one(*, dtype=DType.float32, shape=("n", 5), case=CASE, kind=FillKind.normal, **fill):
    return make(case, x=Input(shape=list(shape), dtype=dtype, fill=Fill(kind, **fill)))["x"]


@pytest.mark.parametrize("dtype", list(DType))
def test_an_input_has_the_declared_dtype_and_shape(dtype):
    tensor = make_one(dtype=dtype, kind=FillKind.ones)
    assert tensor.dtype is getattr(torch, dtype.value)
    assert tensor.shape == (200, 5)
    assert bool((tensor == 1).all())


def test_inputs_come_in_declared_order():
    assert list(make(b=Input(shape=[2]), a=Input(shape=[1]))) == ["b", "a"]


@pytest.mark.parametrize("kind", [FillKind.normal, FillKind.uniform, FillKind.randint])
def test_an_input_is_the_same_each_time_and_another_in_each_case(kind):
    fill = {} if kind is FillKind.normal else {"low": 0, "high": 1000}
    other = Case(name="other", sizes=CASE.sizes, seed=CASE.seed + 1)
    assert torch.equal(make_one(kind=kind, **fill), make_one(kind=kind, **fill))
    assert not torch.equal(make_one(kind=kind, **fill), make_one(kind=kind, **fill, case=other))


def test_an_input_does_not_depend_on_torchs_global_seed():
    torch.manual_seed(1)
    first = make_one()
    torch.manual_seed(2)
    assert torch.equal(first, make_one())


def test_making_inputs_draws_nothing_from_torchs_global_generator():
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    make_one()
    assert torch.equal(torch.rand(1), wanted)


def test_an_added_input_changes_no_other():
    alone = make(x=Input(shape=["n"]))
    beside = make(a=Input(shape=["n"]), x=Input(shape=["n"]))
    assert torch.equal(alone["x"], beside["x"])
    assert not torch.equal(beside["a"], beside["x"])


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_has_mean_zero_and_deviation_one(dtype):
    drawn = make_one(dtype=dtype).double()
    assert abs(drawn.mean().item()) < 0.1
    assert abs(drawn.std().item() - 1) < 0.1


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64])
def test_uniform_fills_its_range(dtype):
    drawn = make_one(dtype=dtype, kind=FillKind.uniform, low=-3, high=-1)
    assert -3 <= drawn.min().item() < -2.9
    assert -1.1 < drawn.max().item() < -1


def test_randint_takes_each_number_but_the_high_end():
    drawn = make_one(dtype=DType.int64, kind=FillKind.randint, low=-2, high=3)
    assert sorted(set(drawn.flatten().tolist())) == [-2, -1, 0, 1, 2]


def test_randint_gives_a_mask_both_values():
    assert set(make_one(dtype=DType.bool, kind=FillKind.randint, low=0, high=2).flatten().tolist()) == {True, False}


def test_arange_counts_along_the_last_axis():
    drawn = make_one(dtype=DType.int32, kind=FillKind.arange, shape=(2, 3))
    assert drawn.tolist() == [[0, 1, 2], [0, 1, 2]]
    drawn += 1  # rows must not share memory


@pytest.mark.parametrize(
    ("kind", "value"), [(FillKind.arange, 0), (FillKind.ones, 1), (FillKind.zeros, 0), (FillKind.constant, -2.5)]
)
def test_a_scalar_is_filled_too(kind, value):
    tensor = make_one(kind=kind, shape=(), value=-2.5)
    assert (tensor.shape, tensor.item()) == ((), value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (DType.float32, -2.5),
        (DType.int64, 7),
        (DType.bool, 1),
        (DType.int64, 2.0**24 + 1),
        (DType.float64, 0.1),
    ],
)
def test_a_constant_has_the_declared_value(dtype, value):
    assert set(make_one(dtype=dtype, kind=FillKind.constant, value=value).flatten().tolist()) == {value}


@pytest.mark.parametrize("kind", [FillKind.normal, FillKind.randint, FillKind.arange, FillKind.constant])
def test_an_input_may_be_empty(kind):
    assert make_one(kind=kind, shape=("n", 0), low=0, high=3).shape == (200, 0)
