"""Sizes that catch what one example hides, for any dims, within the memory allowed."""

import math

import faulty_models
import pytest

from exporter.cases import choose_cases, resolve_shape
from exporter.spec import Dim, Input

RANGES = [
    {"n": (1, 16, 4)},
    {"n": (1, 3, 2)},
    {"n": (1, 3, 1)},
    {"n": (1, 3, 3)},
    {"n": (5, 100, 5)},
    {"n": (2, 1000, 1000)},
    {"n": (2, 1000, 999)},
    {"n": (1, 16, 4), "m": (1, 16, 4)},
    {"n": (1, 3, 1), "m": (1, 3, 1)},
    {"n": (1, 3, 2), "m": (1, 3, 2)},
    {"n": (1, 64, 2), "m": (8, 512, 128), "k": (1, 9, 3)},
    {"n": (1, 4, 2), "m": (1, 4, 2), "k": (1, 4, 2), "l": (1, 4, 2)},
]


def spec_of(ranges, max_input_elements=2**62, **inputs):
    dims = {name: Dim(min=low, max=high, example=example) for name, (low, high, example) in ranges.items()}
    shapes = inputs or {"x": list(ranges)}
    spec = faulty_models.make_spec(inputs={name: Input(shape=shape) for name, shape in shapes.items()}, dims=dims)
    spec.parity.max_input_elements = max_input_elements
    return spec


def sizes_of(cases, dim):
    return {case.sizes[dim] for case in cases}


@pytest.mark.parametrize("ranges", RANGES)
def test_every_dim_gets_three_sizes_with_minimum_maximum_and_example(ranges):
    cases = choose_cases(spec_of(ranges))
    for name, (low, high, example) in ranges.items():
        found = sizes_of(cases, name)
        assert {low, high, example} <= found
        assert len(found) >= 3
        assert all(low <= size <= high for size in found)


@pytest.mark.parametrize("ranges", RANGES)
def test_the_example_is_the_first_case(ranges):
    first = choose_cases(spec_of(ranges))[0]
    assert first.name == "example"
    assert first.sizes == {name: example for name, (_, _, example) in ranges.items()}


@pytest.mark.parametrize("ranges", RANGES)
def test_no_sizes_are_tried_twice_and_no_two_cases_share_a_name_or_seed(ranges):
    cases = choose_cases(spec_of(ranges))
    assert len({tuple(case.sizes.items()) for case in cases}) == len(cases)
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.seed for case in cases}) == len(cases)


@pytest.mark.parametrize(
    "ranges",
    [
        {"n": (1, 16, 4), "m": (1, 16, 4)},
        {"n": (1, 64, 8), "m": (1, 64, 8), "k": (1, 64, 8)},
        {"n": (1, 64, 8), "m": (1, 512, 8)},
    ],
)
def test_in_between_no_two_dims_have_one_size(ranges):
    (between,) = [case for case in choose_cases(spec_of(ranges)) if case.name == "between"]
    sizes = list(between.sizes.values())
    assert len(set(sizes)) == len(sizes)
    for name, (low, high, example) in ranges.items():
        assert between.sizes[name] not in (low, high, example)


def test_in_between_is_odd_where_it_can_be():
    (between,) = [case for case in choose_cases(spec_of({"n": (2, 64, 8)})) if case.name == "between"]
    assert between.sizes["n"] % 2 == 1


def test_each_dim_is_at_its_maximum_while_the_others_stay_at_the_example():
    cases = {case.name: case.sizes for case in choose_cases(spec_of({"n": (1, 16, 4), "m": (2, 99, 8)}))}
    assert cases["max_n"] == {"n": 16, "m": 8}
    assert cases["max_m"] == {"n": 4, "m": 99}
    assert cases["minimum"] == {"n": 1, "m": 2}


def test_without_dims_the_example_is_the_only_case():
    (case,) = choose_cases(spec_of({}, x=[3, 4]))
    assert (case.name, case.sizes) == ("example", {})


def test_the_seeds_count_up_from_the_one_of_the_spec():
    spec = spec_of({"n": (1, 16, 4)})
    spec.model.seed = 70
    assert [case.seed for case in choose_cases(spec)] == [70, 71, 72, 73, 74, 75]


@pytest.mark.parametrize(
    ("limit", "largest"),
    [(100_000, 1000), (99_999, 500), (20_000, 125), (1_000, 10), (999, 10), (1, 10)],
)
def test_the_maximum_is_halved_until_the_inputs_fit(limit, largest):
    cases = choose_cases(spec_of({"n": (1, 1000, 10)}, limit, x=["n", 100]))
    around = {case.sizes["n"] for case in cases if case.name in ("between", "next")}
    assert max(sizes_of(cases, "n") - around) == largest


def test_all_inputs_count_together_towards_the_limit():
    ranges = {"n": (1, 1000, 10)}
    alone = choose_cases(spec_of(ranges, 100_000, x=["n", 100]))
    beside = choose_cases(spec_of(ranges, 100_000, x=["n", 100], y=["n", 1]))
    assert (max(sizes_of(alone, "n")), max(sizes_of(beside, "n"))) == (1000, 500)


@pytest.mark.parametrize(
    "ranges", [{"n": (1, 16, 4), "m": (1, 16, 4)}, {"n": (1, 64, 2), "m": (8, 512, 128), "k": (1, 9, 3)}]
)
def test_no_maximum_goes_over_the_limit(ranges):
    limit = 2 * math.prod(example for _, _, example in ranges.values())
    largest = [case.sizes for case in choose_cases(spec_of(ranges, limit)) if case.name.startswith("max_")]
    assert len(largest) == len(ranges)
    assert max(math.prod(sizes.values()) for sizes in largest) == limit


def test_a_maximum_of_any_height_takes_no_memory():
    cases = choose_cases(spec_of({"n": (1, 2**60, 4)}, 1000))
    assert len(sizes_of(cases, "n")) >= 3
    assert max(sizes_of(cases, "n")) <= 1000


def test_a_shape_resolves_to_its_sizes():
    assert resolve_shape(["n", 3, "m", "n", 0], {"n": 5, "m": 1}) == (5, 3, 1, 5, 0)
    assert resolve_shape([], {"n": 5}) == ()
