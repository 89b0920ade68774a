"""Branches on shapes that no range and no ordinary case shows."""

from pathlib import Path

import pytest
import torch
from faulty_models import make_spec
from torch import nn

from exporter import Dim, Input
from exporter.assumptions import BREAKS, Assumption, add_cases
from exporter.cases import choose_cases
from exporter.conductor import run_export
from exporter.errors import FailureKind, StepError
from exporter.spec import ParityOptions

DIMS = {"batch": Dim(min=1, max=64, example=4), "time": Dim(min=1, max=64, example=9)}


class Branch(nn.Module):
    """Another result for the sizes that `is_odd_one` picks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if self.is_odd_one(*x.shape) else x * 3


class Multiple(Branch):
    def is_odd_one(self, batch, time):
        return batch % 10 == 0


class OneSize(Branch):
    def is_odd_one(self, batch, time):
        return batch == 37


class Product(Branch):
    def is_odd_one(self, batch, time):
        return batch * time == 33


class Square(Branch):
    def is_odd_one(self, batch, time):
        return batch == time + 20


class Harmless(nn.Module):
    """Branches, and does the same thing either way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] % 10 == 0 else x + x


def spec_of_two_dims():
    spec = make_spec()
    spec.model.dims = dict(DIMS)
    spec.model.inputs = {"x": Input(["batch", "time"])}
    spec.model.outputs = {}
    return spec


@pytest.mark.parametrize("model", [Multiple, OneSize, Product, Square])
def test_a_branch_on_particular_sizes_is_found_and_named(model: type[nn.Module], tmp_path: Path) -> None:
    result = run_export(spec_of_two_dims(), tmp_path, model())
    assert result.failure is not None
    assert result.failure.kind is FailureKind.baked_branch
    # No way of exporting mends it.
    assert result.rescues == []
    assert f"case {BREAKS}" in result.failure.cause
    assert "narrow the dim" in result.failure.hint


def test_a_branch_that_makes_no_difference_passes(tmp_path: Path) -> None:
    result = run_export(spec_of_two_dims(), tmp_path, Harmless())
    assert result.failure is None
    tried = next(case for case in result.cases if case.name.startswith(BREAKS))
    assert tried.sizes["batch"] % 10 == 0
    assert "batch" in tried.name


def test_an_assumption_that_a_case_breaks_already_needs_no_other() -> None:
    spec = spec_of_two_dims()
    cases = choose_cases(spec)
    assert add_cases(spec, cases, [Assumption("batch > 1", ("batch",), lambda batch: batch > 1)]) == cases


def test_an_assumption_that_holds_for_all_declared_sizes_needs_no_case() -> None:
    spec = spec_of_two_dims()
    cases = choose_cases(spec)
    assert add_cases(spec, cases, [Assumption("batch < 65", ("batch",), lambda batch: batch < 65)]) == cases


def test_the_smallest_inputs_that_break_an_assumption_are_taken() -> None:
    spec = spec_of_two_dims()
    cases = choose_cases(spec)
    extended = add_cases(spec, cases, [Assumption("batch % 10 != 0", ("batch",), lambda batch: batch % 10 != 0)])
    assert extended[len(cases) :][0].sizes == {"batch": 10, "time": 9}


def test_sizes_too_large_to_try_are_a_failure() -> None:
    spec = spec_of_two_dims()
    spec.parity = ParityOptions(max_input_elements=100)
    assumption = Assumption("batch*time <= 4000", ("batch", "time"), lambda batch, time: batch * time <= 4000)
    with pytest.raises(StepError, match=r"batch\*time <= 4000.*parity\.max_input_elements=100") as raised:
        add_cases(spec, choose_cases(spec), [assumption])
    assert raised.value.kind is FailureKind.dim_narrowed


class OverFourHundred(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] <= 400 else x * 3


@pytest.mark.parametrize("axis", ["2*a", "a + b"])
def test_a_branch_on_a_computed_size_is_refused_where_its_other_side_cannot_be_tried(tmp_path: Path, axis: str):
    spec = make_spec()
    spec.model.dims = {name: Dim(min=1, max=10**6, example=4) for name in ("a", "b")[: 1 + (axis == "a + b")]}
    spec.model.inputs = {"x": Input([axis])}
    spec.parity = ParityOptions(max_input_elements=100)
    failure = run_export(spec, tmp_path, OverFourHundred(), threads=1).failure
    assert failure is not None
    assert failure.kind is FailureKind.dim_narrowed
    assert "<= 400" in failure.cause


def test_a_branch_on_a_computed_size_is_caught_where_its_other_side_is_tried(tmp_path: Path):
    spec = make_spec()
    spec.model.dims = {"a": Dim(min=1, max=10**6, example=4)}
    spec.model.inputs = {"x": Input(["2*a"])}
    spec.parity = ParityOptions(max_input_elements=1000)
    failure = run_export(spec, tmp_path, OverFourHundred(), threads=1).failure
    assert failure is not None
    assert failure.kind is FailureKind.baked_branch
