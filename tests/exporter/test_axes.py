"""Sizes in shapes: arithmetic on dims, and nothing but that."""

import pytest

from exporter.axes import AxisError, evaluate_axis, names_in_axis

SIZES = {"seq": 7, "past": 20, "width": 33}


@pytest.mark.parametrize(
    ("axis", "size"),
    [
        (5, 5),
        ("seq", 7),
        ("2*seq", 14),
        ("past + seq", 27),
        ("(width - 1)//2 + 1", 17),
        ("width % 4", 1),
        ("-seq + past", 13),
        (" seq ", 7),
    ],
)
def test_arithmetic_on_dims_is_computed(axis, size):
    assert evaluate_axis(axis, SIZES) == size


def test_names_come_in_order_and_once():
    assert names_in_axis("past + seq*seq") == ["past", "seq"]
    assert names_in_axis(5) == []


@pytest.mark.parametrize(
    "axis",
    [
        "",
        "seq +",
        "seq.real",
        "max(seq, 2)",
        "seq / 2",
        "2.5*seq",
        "True",
        "'seq'",
        "[seq]",
        "seq if past else 2",
        "a b",
    ],
)
def test_anything_else_is_no_size(axis):
    with pytest.raises(AxisError, match="is no size"):
        names_in_axis(axis)


def test_a_dim_without_a_size_and_a_division_by_zero_are_named():
    with pytest.raises(AxisError, match="'batch' has no size"):
        evaluate_axis("2*batch", SIZES)
    with pytest.raises(AxisError, match="divides by zero"):
        evaluate_axis("seq//(past - 20)", SIZES)
