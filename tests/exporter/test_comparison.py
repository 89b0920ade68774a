"""Which differences pass, and that none hides behind broadcasting, casting or NaN."""

import json

import numpy as np
import pytest

from exporter.comparison import NONFINITE, compare, same_bits
from exporter.plain_data import to_plain
from exporter.spec import Precision, PrecisionName

NAN, INF = float("nan"), float("inf")


def precision(rtol=0.0, atol=0.0):
    return Precision(name=PrecisionName.fp32, rtol=rtol, atol=atol)


def f32(*values):
    return np.array(values, np.float32)


def f64(*values):
    return np.array(values, np.float64)


# 0.25 + 0.125 * 2 is 0.5 exactly, in binary too.
EDGE = precision(rtol=0.125, atol=0.25)


@pytest.mark.parametrize(
    ("expected", "actual", "passed"),
    [
        (2.0, 2.5, True),
        (2.0, np.nextafter(2.5, 3), False),
        (2.0, 1.5, True),
        (2.0, np.nextafter(1.5, 1), False),
        (-2.0, -2.5, True),
        (-2.0, np.nextafter(-2.5, -3), False),
        (0.0, 0.25, True),
        (0.0, np.nextafter(0.25, 1), False),
    ],
)
def test_an_element_passes_up_to_atol_plus_rtol_times_expected(expected, actual, passed):
    found = compare("y", f64(expected), f64(actual), EDGE)
    assert (found.passed, found.num_mismatched) == (passed, 0 if passed else 1)
    assert found.max_abs_diff == abs(actual - expected)


@pytest.mark.parametrize(
    ("expected", "actual", "gates", "share"),
    [
        # 0.25 of 0.25, and 0.25 of 0.25 + 0.125 * 2.
        (f64(0, 2), f64(0.25, 2.25), EDGE, 1.0),
        (f64(0, 2), f64(0.125, 2.25), EDGE, 0.5),
        (f64(0, 2), f64(0, 4), EDGE, 4.0),
        (f64(1, NAN), f64(1, NAN), EDGE, 0.0),
        (f64(), f64(), EDGE, 0.0),
        # Nothing is allowed where PyTorch gives zero; equal is equal there, and a difference is beyond any multiple.
        (f64(0, 2), f64(0, 2.5), precision(rtol=0.5), 0.5),
        (f64(0, 2), f64(0.1, 2.5), precision(rtol=0.5), None),
        # Elements are not gated.
        (f64(0, 2), f64(0, 2), precision(None, None), None),
    ],
)
def test_the_largest_difference_is_told_in_multiples_of_what_its_element_may_have(expected, actual, gates, share):
    assert compare("y", expected, actual, gates, allow_nonfinite=True).in_tolerances == share


def test_the_tolerance_is_relative_to_pytorch_not_to_onnx_runtime():
    half = precision(rtol=0.5)
    assert compare("y", f32(10), f32(5), half).passed
    assert not compare("y", f32(5), f32(10), half).passed


def test_with_no_tolerance_only_equality_passes():
    one_ulp = np.nextafter(np.float32(1), np.float32(2))
    assert compare("y", f32(1), f32(1), precision()).passed
    assert not compare("y", f32(1), f32(one_ulp), precision()).passed


def test_one_wrong_element_of_many_fails_and_is_counted():
    expected = np.ones((10, 100), np.float32)
    actual = expected.copy()
    actual[7, 3] = 1.5
    found = compare("logits", expected, actual, precision(rtol=1e-3))
    assert (found.output, found.passed, found.num_elements, found.num_mismatched) == ("logits", False, 1000, 1)
    assert found.reason == "1 of 1000 elements out of tolerance"
    assert (found.max_abs_diff, found.max_rel_diff) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("expected_shape", "actual_shape"),
    [((3, 1), (3,)), ((1, 3), (3, 3)), ((), (1,)), ((2, 0), (0,)), ((0, 3), (0, 4)), ((2, 3), (3, 2)), ((1,), (5,))],
)
def test_shapes_that_would_broadcast_are_a_mismatch(expected_shape, actual_shape):
    found = compare("y", np.ones(expected_shape, np.float32), np.ones(actual_shape, np.float32), precision(atol=9))
    assert not found.passed
    assert found.reason == f"torch gives float32{list(expected_shape)}, ONNX Runtime float32{list(actual_shape)}"
    assert (found.max_abs_diff, found.max_rel_diff) == (None, None)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [("float32", "float64"), ("int64", "int32"), ("bool", "uint8"), ("float16", "float32"), ("int8", "uint8")],
)
def test_equal_values_of_another_dtype_are_a_mismatch(expected, actual):
    found = compare("y", np.ones(3, expected), np.ones(3, actual), precision(atol=9))
    assert not found.passed
    assert found.reason == f"torch gives {expected}[3], ONNX Runtime {actual}[3]"


@pytest.mark.parametrize(
    ("expected", "actual", "places"),
    [
        (f32(1, NAN), f32(1, NAN), "torch and ONNX Runtime"),
        (f32(1, NAN), f32(1, 2), "torch"),
        (f32(1, 2), f32(1, NAN), "ONNX Runtime"),
        (f32(1, INF), f32(1, INF), "torch and ONNX Runtime"),
        (f32(1, 2), f32(1, -INF), "ONNX Runtime"),
    ],
)
def test_nan_and_infinity_fail_unless_declared(expected, actual, places):
    found = compare("y", expected, actual, precision(atol=9))
    assert not found.passed
    assert found.reason == f"{NONFINITE} in 1 of 2 elements ({places})"
    assert found.num_mismatched == 1


@pytest.mark.parametrize("values", [(NAN, 1), (INF, 1), (-INF, 1), (NAN, INF)])
def test_declared_nan_and_infinity_pass_in_the_same_places(values):
    found = compare("y", f32(*values), f32(*values), precision(), allow_nonfinite=True)
    assert (found.passed, found.num_mismatched, found.max_abs_diff, found.reason) == (True, 0, 0.0, "")


@pytest.mark.parametrize(
    ("expected", "actual", "num_mismatched"),
    [
        (f32(INF, 1), f32(-INF, 1), 1),
        (f32(NAN, 1), f32(INF, 1), 1),
        (f32(NAN, 1), f32(1, NAN), 2),
        (f32(NAN, 1), f32(0, 1), 1),
        (f32(0, 1), f32(INF, 1), 1),
    ],
)
def test_declared_nan_and_infinity_fail_in_other_places(expected, actual, num_mismatched):
    found = compare("y", expected, actual, precision(rtol=9, atol=9), allow_nonfinite=True)
    assert (found.passed, found.num_mismatched) == (False, num_mismatched)


def test_a_finite_miss_beside_declared_nan_is_seen():
    found = compare("y", f32(NAN, 1), f32(NAN, 2), precision(atol=0.5), allow_nonfinite=True)
    assert (found.passed, found.num_mismatched, found.max_abs_diff) == (False, 1, 1.0)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_beyond_what_a_double_holds_are_told_apart(dtype):
    expected, actual = np.array([2**53], dtype), np.array([2**53 + 1], dtype)
    found = compare("y", expected, actual, precision())
    assert (found.passed, found.num_mismatched) == (False, 1)
    assert compare("y", actual, actual, precision()).passed


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_whole_numbers_and_truth_values_have_no_tolerance(dtype):
    found = compare("y", np.array([1, 1], dtype), np.array([1, 0], dtype), precision(rtol=1, atol=1))
    assert (found.passed, found.num_mismatched) == (False, 1)


def test_unsigned_differences_do_not_wrap_around():
    found = compare("y", np.array([3], np.uint8), np.array([5], np.uint8), precision())
    assert (found.passed, found.max_abs_diff) == (False, 2.0)


def test_half_precision_differences_do_not_overflow():
    found = compare("y", np.array([60000], np.float16), np.array([-60000], np.float16), precision(rtol=1))
    assert (found.passed, found.max_abs_diff) == (False, 120000 - 2 * (60000 - float(np.float16(60000))))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(f32(0, 1), f32(10, 1)), (f32(0), f32(1e30)), (f64(-1.5e308), f64(1.5e308)), (f64(5e-324), f64(1e308))],
)
def test_differences_too_large_for_a_double_fail_and_can_be_written_as_json(expected, actual):
    found = compare("y", expected, actual, precision(rtol=1e-3, atol=1e-3))
    assert (found.passed, found.num_mismatched) == (False, 1)
    json.dumps(to_plain(found), allow_nan=False)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_empty_outputs_of_one_shape_agree(dtype):
    found = compare("y", np.zeros((0, 3), dtype), np.zeros((0, 3), dtype), precision())
    assert (found.passed, found.num_elements, found.max_abs_diff, found.max_rel_diff) == (True, 0, 0.0, 0.0)


def test_scalars_are_compared_like_any_other():
    assert compare("y", np.array(1.0), np.array(1.0), precision()).passed
    found = compare("y", np.array(1.0), np.array(2.0), precision(atol=0.5))
    assert (found.passed, found.num_elements, found.num_mismatched, found.max_abs_diff) == (False, 1, 1, 1.0)


def test_equal_zeros_have_no_relative_difference():
    assert compare("y", f32(0, 0), f32(0, -0.0), precision()).max_rel_diff == 0.0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (f32(1, NAN), f32(1, NAN), True),
        (f32(1, NAN), f32(1, 2), False),
        (f32(1), f32(np.nextafter(np.float32(1), np.float32(2))), False),
        (f32(1), f64(1), False),
        (f32(1), f32(1, 1), False),
        (f32(INF), f32(-INF), False),
        (np.array([True]), np.array([False]), False),
        (np.array([7]), np.array([7]), True),
        (np.zeros((0, 2)), np.zeros((0, 2)), True),
        (np.zeros((0, 2)), np.zeros((2, 0)), False),
    ],
)
def test_two_runs_are_the_same_only_bit_for_bit(first, second, same):
    assert same_bits(first, second) is same


# --- the gate on the norm


def norm_gate(limit, rtol=None, atol=None):
    return Precision(name=PrecisionName.fp16, rtol=rtol, atol=atol, max_rel_l2=limit)


def test_the_error_of_the_whole_output_is_told_in_every_precision():
    found = compare("y", f32(3, 4), f32(3, 4.5), precision(atol=1))
    assert found.passed
    assert found.rel_l2 == 0.1


@pytest.mark.parametrize(("actual", "passed"), [(5.0, True), (np.nextafter(5.0, 6), False), (3.0, True), (2.9, False)])
def test_an_output_passes_up_to_the_limit_of_the_norm(actual, passed):
    found = compare("y", f64(4.0), f64(actual), norm_gate(0.25))
    assert found.passed is passed
    assert (found.reason == "") is passed


def test_the_reason_says_how_far_over_the_limit():
    assert compare("y", f64(3, 4), f64(3, 5), norm_gate(0.1)).reason == "rel_l2 0.2 is over 0.1"


def test_elements_are_not_gated_where_rtol_and_atol_are_null():
    found = compare("y", f64(100, 1), f64(100, 2), norm_gate(0.1))
    assert (found.passed, found.num_mismatched) == (True, 0)
    assert not compare("y", f64(100, 1), f64(100, 2), norm_gate(0.1, atol=0.5)).passed


def test_one_tolerance_that_is_null_counts_as_zero():
    assert compare("y", f64(0, 2), f64(0.5, 2), norm_gate(None, atol=0.5)).passed
    assert not compare("y", f64(0, 2), f64(0.5, 2), norm_gate(None, rtol=0.5)).passed


def test_both_gates_have_to_hold_and_both_are_named():
    found = compare("y", f64(3, 4), f64(3, 6), norm_gate(0.1, atol=0.5))
    assert found.reason == "1 of 2 elements out of tolerance, rel_l2 0.4 is over 0.1"


def test_an_error_beside_zeros_alone_is_infinite_and_fails():
    found = compare("y", f64(0, 0), f64(0, 1e-30), norm_gate(1e9))
    assert (found.passed, found.rel_l2) == (False, None)
    assert found.reason == "rel_l2 infinite is over 1e+09"
    assert compare("y", f64(0, 0), f64(0, 0), norm_gate(0.0)).passed


def test_an_empty_output_has_no_error():
    assert compare("y", f32(), f32(), norm_gate(0.0)).rel_l2 == 0.0


def test_the_norm_does_not_overflow():
    huge = np.finfo(np.float64).max
    assert compare("y", f64(huge, huge), f64(huge, huge / 2), norm_gate(1.0)).rel_l2 == pytest.approx(0.125**0.5)
    opposite = compare("y", f64(huge), f64(-huge), norm_gate(1.0))
    assert (opposite.passed, opposite.rel_l2) == (False, None)
    json.dumps(to_plain(opposite), allow_nan=False)


def test_whole_numbers_are_equal_in_every_precision():
    assert not compare("y", np.array([1000]), np.array([1001]), norm_gate(0.5)).passed


def test_nan_does_not_pass_the_norm():
    assert not compare("y", f32(1, NAN), f32(1, NAN), norm_gate(1.0)).passed
    assert compare("y", f32(1, NAN), f32(1, NAN), norm_gate(0.0), allow_nonfinite=True).passed
