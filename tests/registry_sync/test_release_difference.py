"""What counts as a difference between two releases of a model, and which of them a budget refuses."""

import dataclasses

import pytest
from release_data import make_model

from exporter.evidence import DimRecord
from exporter.result import TensorRecord
from registry_sync.release_difference import compare_models
from registry_sync.release_manifest import Measurements, ParitySummary
from registry_sync.release_options import ReleaseBudgets

BEFORE = make_model()
MIB = 2**20


def make_dim(name: str = "batch", proven: tuple[int, ...] = (1, 2, 64)) -> DimRecord:
    return DimRecord(name=name, min=min(proven), max=max(proven), example=2, proven_sizes=list(proven))


def measure(**changes: object) -> dict[str, object]:
    return {"measured": dataclasses.replace(BEFORE.measured, **changes)}


def prove(**changes: object) -> dict[str, object]:
    return {"parity": dataclasses.replace(BEFORE.parity, **changes)}


def list_exceeded(after: dict[str, object], budgets: ReleaseBudgets | None = None) -> list[str]:
    changes = compare_models(BEFORE, dataclasses.replace(BEFORE, **after), budgets or ReleaseBudgets())
    return [change.what for change in changes if change.exceeded]


def test_nothing_is_said_of_a_model_that_is_as_it_was() -> None:
    assert compare_models(BEFORE, make_model(is_new=False, mlflow_run_id="other"), ReleaseBudgets()) == []


BEYOND = [
    ("signature", {"inputs": [TensorRecord(name="x", dtype="float16", shape=["batch", 8])]}, "may_change_signature"),
    ("signature", {"inputs": [TensorRecord(name="x", dtype="float32", shape=[2, 8])]}, "may_change_signature"),
    ("signature", {"outputs": []}, "may_change_signature"),
    ("signature", {"outputs": [*BEFORE.outputs, *BEFORE.inputs]}, "may_change_signature"),
    ("precision", {"precision": "fp16"}, "may_change_signature"),
    ("dims", {"dims": [make_dim(proven=(1, 2, 32))]}, "may_narrow_dims"),
    ("dims", {"dims": [make_dim(proven=(2, 64))]}, "may_narrow_dims"),
    ("dims", {"dims": []}, "may_narrow_dims"),
    ("opset", {"opset_version": 21}, "may_change_opset"),
    ("ops", {"op_counts": {"Gemm": 87, "Relu": 10, "Cast": 3}}, "max_op_change_percent"),
    ("parity", prove(max_noise_ratio=8.1), "max_parity_factor"),
    ("parity", prove(max_noise_ratio=None, max_abs_diff=4.1e-5), "max_parity_factor"),
    ("memory", measure(export_peak_bytes=133 * MIB), "max_memory_growth_percent"),
    ("latency", measure(latency_s=0.031), "max_latency_factor"),
    ("size", measure(size_bytes=1_051_000), "max_size_change_percent"),
    ("size", measure(size_bytes=949_000), "max_size_change_percent"),
]


@pytest.mark.parametrize(("what", "after", "key"), BEYOND)
def test_a_change_beyond_its_budget_is_refused_and_without_the_budget_it_is_not(
    what: str, after: dict[str, object], key: str
) -> None:
    assert list_exceeded(after) == [what]
    without = ReleaseBudgets(**{key: True if key.startswith("may_") else None})
    assert list_exceeded(after, without) == []
    changes = compare_models(BEFORE, dataclasses.replace(BEFORE, **after), without)
    assert [change.what for change in changes] in ([what], [])


@pytest.mark.parametrize(
    ("what", "after"),
    [
        # Wider than it was.
        ("dims", {"dims": [make_dim(proven=(1, 2, 128))]}),
        ("dims", {"dims": [make_dim(), make_dim("seq", (1, 16))]}),
        ("ops", {"op_counts": {"Gemm": 88, "Relu": 10}}),
        ("parity", prove(max_noise_ratio=7.9)),
        ("parity", prove(max_noise_ratio=0.2)),
        # Over the share, within the slack; and the other way round.
        ("memory", measure(export_peak_bytes=131 * MIB)),
        ("memory", measure(export_peak_bytes=20 * MIB)),
        ("latency", measure(latency_s=0.029)),
        ("size", measure(size_bytes=1_049_000)),
    ],
)
def test_a_change_within_its_budget_is_told(what: str, after: dict[str, object]) -> None:
    (change,) = compare_models(BEFORE, dataclasses.replace(BEFORE, **after), ReleaseBudgets())
    assert (change.what, change.exceeded) == (what, "")
    assert change.before != change.after


@pytest.mark.parametrize(
    "after",
    [
        prove(max_noise_ratio=2.2),
        measure(export_peak_bytes=105 * MIB, latency_s=0.012),
        # Nothing to compare with.
        {"parity": ParitySummary()},
        {"measured": Measurements(size_bytes=1_000_000)},
    ],
)
def test_what_comes_and_goes_by_itself_is_not_told(after: dict[str, object]) -> None:
    assert compare_models(BEFORE, dataclasses.replace(BEFORE, **after), ReleaseBudgets()) == []


def test_errors_below_what_counts_are_no_difference() -> None:
    before = make_model(parity=ParitySummary(max_noise_ratio=0.01))
    after = make_model(parity=ParitySummary(max_noise_ratio=0.9))
    assert compare_models(before, after, ReleaseBudgets()) == []
    before = make_model(parity=ParitySummary(max_abs_diff=0.0, atol=1e-5))
    after = make_model(parity=ParitySummary(max_abs_diff=9e-6, atol=1e-5))
    assert compare_models(before, after, ReleaseBudgets()) == []


def test_inputs_in_another_order_are_another_signature() -> None:
    two = [TensorRecord(name=name, dtype="float32", shape=[2]) for name in "ab"]
    (change,) = compare_models(make_model(inputs=two), make_model(inputs=two[::-1]), ReleaseBudgets())
    assert change.before == "a: float32[2]; b: float32[2]"
    assert change.after == "b: float32[2]; a: float32[2]"


def test_a_change_says_what_in_words() -> None:
    after = dataclasses.replace(BEFORE, op_counts={"Gemm": 80, "Relu": 10, "Cast": 3}, **measure(size_bytes=2_000_000))
    ops, size = compare_models(BEFORE, after, ReleaseBudgets())
    assert (ops.before, ops.after) == ("100 nodes", "93 nodes: Gemm -10, Cast +3")
    assert ops.exceeded == "13 % of the nodes, allowed are 5 %"
    assert (size.before, size.after) == ("977 KiB", "1.91 MiB")
    assert size.exceeded == "+100.0 %, allowed are 5 %"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"size_bytes": 1000}, {"size_bytes": 1050}),
        ({"size_bytes": 1000}, {"size_bytes": 950}),
        ({"export_peak_bytes": 1000 * MIB}, {"export_peak_bytes": 1300 * MIB}),
        ({"latency_s": 0.7}, {"latency_s": 2.1}),
    ],
)
def test_what_is_just_what_is_allowed_is_allowed(before: dict[str, float], after: dict[str, float]) -> None:
    (old, new) = (dataclasses.replace(BEFORE, **measure(**one)) for one in (before, after))
    assert [change.what for change in compare_models(old, new, ReleaseBudgets()) if change.exceeded] == []


def test_a_size_that_differs_reads_as_one_that_differs() -> None:
    (change,) = compare_models(BEFORE, make_model(**measure(size_bytes=1_000_012)), ReleaseBudgets())
    assert (change.before, change.after) == ("1,000,000 B", "1,000,012 B")


def test_a_model_that_was_empty_has_grown_from_nothing() -> None:
    before, after = (make_model(**measure(size_bytes=size)) for size in (0, 5))
    (change,) = compare_models(before, after, ReleaseBudgets())
    assert change.exceeded == "from nothing, allowed are 5 %"
