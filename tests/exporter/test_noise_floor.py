"""Bugs that a tolerance of 1e-3 lets through are caught, right twins are not, and what is unknown decides nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from faulty_models import make_spec
from torch import nn
from torch.nn import functional

from exporter import ExportDirectory
from exporter.cases import Case, choose_cases
from exporter.comparison import compare
from exporter.conductor import run_export
from exporter.errors import FailureKind, StepError
from exporter.evidence import CaseRecord, NoiseVerdict
from exporter.inputs import make_inputs
from exporter.noise_floor import measure_noise, settle
from exporter.parity import judge, open_session, run_cases
from exporter.spec import Input, NoiseFloor, ParityOptions, Precision, PrecisionName

# Lets through what no one would ship, and what people set when 1e-5 "fails for no reason".
LOOSE = Precision(name=PrecisionName.fp32, rtol=1e-3, atol=1e-3)
TIGHT = Precision(name=PrecisionName.fp32, rtol=1e-4, atol=1e-5)


class Norm(nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.norm = nn.LayerNorm(16, eps=eps)

    def forward(self, x):
        return self.norm(x)


class FeedForward(nn.Module):
    def __init__(self, gelu):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.gelu = gelu

    def forward(self, x):
        return x + self.down(functional.gelu(self.up(x), approximate=self.gelu))


class Square(nn.Module):
    """A weight that fits either way round, and is nearly the same either way round."""

    def __init__(self, transposed):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(16) + 2e-5 * torch.randn(16, 16))
        self.transposed = transposed

    def forward(self, x):
        return x @ (self.weight.T if self.transposed else self.weight)


class Causal(nn.Module):
    """Attention to the past, and with a diagonal of 1 to the next token too; its layers are as before any training."""

    def __init__(self, diagonal):
        super().__init__()
        self.qk, self.v = nn.Linear(16, 32), nn.Linear(16, 16, bias=False)
        nn.init.normal_(self.v.weight, std=5e-5)
        self.diagonal = diagonal

    def forward(self, x):
        query, key = self.qk(x).chunk(2, dim=-1)
        scores = query @ key.transpose(-1, -2) / 4
        seen = torch.ones(64, 64).tril(self.diagonal) > 0
        return x + torch.where(seen, scores, -1e4).softmax(-1) @ self.v(x)


class BatchNorm(nn.Module):
    """Its running statistics are those of the batch it is given, which training takes with 1/n for 1/(n - 1)."""

    def __init__(self, training):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        (x,) = make_inputs(make_spec(inputs={"x": Input([2048, 16])}, dims={}).model, Case("", {}, 0)).values()
        self.norm.running_mean, self.norm.running_var = x.mean(0), x.var(0)
        self.left_in_training = training

    def forward(self, x):
        norm = self.norm
        if self.left_in_training:
            return functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        return norm(x)


class Bias(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.linear = nn.Linear(16, 16, bias=False)
        self.bias = bias

    def forward(self, x):
        return self.linear(x) + self.bias


BUGS = [
    pytest.param(Norm, 1e-6, 1e-5, [64, 16], id="wrong epsilon"),
    pytest.param(FeedForward, "none", "tanh", [64, 16], id="tanh-GELU"),
    pytest.param(Square, False, True, [64, 16], id="transposed weight"),
    pytest.param(Causal, 0, 1, [4, 64, 16], id="off-by-one mask"),
    pytest.param(BatchNorm, False, True, [2048, 16], id="batch norm in training"),
    pytest.param(Bias, 1e-4, 0.0, [64, 16], id="dropped bias"),
]


def build(make, argument):
    torch.manual_seed(0)
    return make(argument).eval()


def prove(path, module, spec):
    session = open_session(path, prepack=False, threads=1)
    return settle(list(run_cases(session, module, spec, choose_cases(spec), [])), spec.parity)


@pytest.mark.parametrize(("make", "right", "wrong", "shape"), BUGS)
def test_a_bug_that_the_tolerance_lets_through_is_caught_and_its_right_twin_is_not(tmp_path, make, right, wrong, shape):
    spec = replace(make_spec(inputs={"x": Input(shape)}, dims={}), precision=LOOSE)
    # The twin: the bug in both. It is what ONNX Runtime gets from here on.
    twin = run_export(spec, tmp_path, build(make, wrong), threads=1)
    assert (twin.failure, twin.cases[0].noise_reason) == (None, "")
    assert twin.cases[0].outputs[0].noise.verdict is NoiseVerdict.right
    assert twin.max_noise_ratio < 2
    path = ExportDirectory(tmp_path).model
    blind = replace(spec, parity=ParityOptions(noise_floor=NoiseFloor.off))
    judge(prove(path, build(make, right), blind))
    with pytest.raises(StepError, match="times PyTorch's own rounding error") as caught:
        judge(prove(path, build(make, right), spec))
    assert caught.value.kind is FailureKind.parity_failed
    assert "rtol and atol alone would pass it" in caught.value.hint


class Ambiguous(nn.Module):
    """Another epsilon once it is exported."""

    def forward(self, x):
        return functional.layer_norm(x, (8,), eps=1e-5 if torch.onnx.is_in_onnx_export() else 1e-6)


def test_an_export_fails_for_a_bug_within_the_tolerance_and_passes_without_the_noise_floor(tmp_path):
    spec = replace(make_spec(), precision=LOOSE)
    result = run_export(spec, tmp_path, Ambiguous().eval(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert "times PyTorch's own rounding error (limit 24)" in result.failure.cause
    assert result.max_noise_ratio > 30
    assert all(dim.proven_sizes == [] for dim in result.dims)
    blind = replace(spec, parity=ParityOptions(noise_floor=NoiseFloor.off))
    result = run_export(blind, tmp_path, Ambiguous().eval(), threads=1)
    assert (result.failure, result.max_noise_ratio) == (None, None)
    wide = replace(spec, parity=ParityOptions(max_noise_ratio=1e4))
    assert run_export(wide, tmp_path, Ambiguous().eval(), threads=1).failure is None


# From here on arrays stand in for the three runs.

EPS = 2.0**-23


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def case_of(exact, torch_error, ort_error, precision=LOOSE):
    """A case whose results are the exact values and an error, as float32 holds them."""
    expected, actual = ((exact + error).astype(np.float32) for error in (torch_error, ort_error))
    output = compare("y", expected, actual, precision)
    noise = measure_noise(expected, actual, exact, precision)
    return CaseRecord(name="c", sizes={}, seed=0, outputs=[replace(output, noise=noise)])


def settled(*cases, **options):
    return [case.outputs[0] for case in settle(cases, ParityOptions(**options))]


def noisy(rms, *shape, seed=1):
    return rms * draw(*shape, seed=seed)


def test_one_wrong_element_of_a_million_is_caught():
    exact, error = draw(1_000_000), noisy(4 * EPS, 1_000_000, seed=2)
    error[123_456] = 5e-4
    (output,) = settled(case_of(exact, noisy(4 * EPS, 1_000_000), error))
    assert (output.passed, output.num_mismatched, output.noise.verdict) == (False, 0, NoiseVerdict.wrong)
    assert output.reason.endswith("times PyTorch's own rounding error (limit 24)")


@pytest.mark.parametrize("wrong", [lambda exact: 150 * EPS, lambda exact: 150 * EPS * exact], ids=["bias", "gain"])
def test_a_small_error_that_all_elements_share_is_caught_under_the_noise(wrong):
    exact = draw(100_000)
    torch_error, ort_error = noisy(40 * EPS, 100_000), noisy(40 * EPS, 100_000, seed=2)
    assert settled(case_of(exact, torch_error, ort_error))[0].noise.verdict is NoiseVerdict.right
    (output,) = settled(case_of(exact, torch_error, ort_error + wrong(exact)))
    assert output.noise.ort.rms < 4 * output.noise.torch.rms
    assert output.noise.verdict is NoiseVerdict.wrong


@pytest.mark.parametrize(
    ("exact", "ort_error"),
    [
        pytest.param(np.full(100, 1.0), 4 * EPS, id="a few units in the last place where PyTorch is exact"),
        pytest.param(np.eye(1000)[:1], EPS * np.eye(1000)[:1], id="one value among zeros"),
        pytest.param(np.full(100, 1e-9), 1.3e-7, id="a sigmoid's tail"),
        pytest.param(np.zeros(100), 0.0, id="zeros"),
        pytest.param(np.where(np.arange(100) == 3, 1000.0, 1e-3), 1e-6, id="values of very different size"),
    ],
)
def test_an_exact_pytorch_makes_no_false_alarm(exact, ort_error):
    (output,) = settled(case_of(exact, 0.0, ort_error))
    assert (output.passed, output.noise.verdict is NoiseVerdict.wrong) == (True, False)


def test_luck_in_one_case_is_told_by_the_others():
    many, few = draw(1000), np.array([0.5])
    large = case_of(many, noisy(50 * EPS, 1000), noisy(50 * EPS, 1000, seed=2))
    lucky = case_of(few, 0.0, np.array([60 * EPS]))
    assert [output.noise.verdict for output in settled(large, lucky)] == [NoiseVerdict.right, NoiseVerdict.open]
    assert all(output.passed for output in settled(large, lucky))


def test_few_elements_leave_it_to_the_tolerance():
    outputs = settled(case_of(np.array([0.5]), 0.0, np.array([1e-4])), case_of(np.array([0.5]), 0.0, np.array([0.01])))
    assert [(output.passed, output.noise.ratio) for output in outputs] == [(True, None), (False, None)]


def test_a_miss_is_forgiven_where_pytorch_misses_as_much():
    exact = draw(64, 64)
    case = case_of(exact, noisy(1e-3, 64, 64), noisy(1e-3, 64, 64, seed=2), TIGHT)
    assert case.outputs[0].num_mismatched > 100
    (output,) = settled(case)
    assert (output.passed, output.reason, output.noise.verdict) == (True, "", NoiseVerdict.right)
    # Twice that is forgiven, ten times is the tolerance's to judge, a hundred times is wrong.
    for factor, verdict in ((2, NoiseVerdict.right), (10, NoiseVerdict.open), (100, NoiseVerdict.wrong)):
        (output,) = settled(case_of(exact, noisy(1e-3, 64, 64), noisy(factor * 1e-3, 64, 64, seed=2), TIGHT))
        assert (output.passed, output.noise.verdict) == (verdict is NoiseVerdict.right, verdict)


def test_a_miss_among_small_values_is_not_forgiven_for_the_noise_of_large_ones():
    exact = draw(2, 1000) * [[1e4], [1e-1]]
    torch_error, ort_error = (noisy(EPS, 2, 1000, seed=seed) * [[1e4], [1e-1]] for seed in (1, 2))
    assert settled(case_of(exact, torch_error, ort_error, TIGHT))[0].passed
    ort_error[1] += 1e-3
    (output,) = settled(case_of(exact, torch_error, ort_error, TIGHT))
    assert output.noise.ratio < 4
    assert (output.passed, output.noise.verdict) == (False, NoiseVerdict.open)


def test_with_no_tolerance_at_all_nothing_is_forgiven():
    precision = Precision(name=PrecisionName.fp32, rtol=0.0, atol=0.0)
    (output,) = settled(case_of(draw(100), noisy(EPS, 100), noisy(EPS, 100, seed=2), precision))
    assert (output.passed, output.noise.torch.in_tolerances) == (False, None)


def test_values_too_small_to_matter_are_forgiven_only_what_pytorch_does():
    precision = Precision(name=PrecisionName.fp32, rtol=1e-4, atol=0.0)
    (output,) = settled(case_of(1e-9 * draw(100), noisy(1e-16, 100), 1e-9, precision))
    assert (output.passed, output.noise.ratio < 1) == (False, True)


def test_a_float64_run_that_took_another_branch_is_no_measure():
    exact = draw(100, 10)
    torch_error = np.zeros((100, 10))
    torch_error[7] = 1.0
    for ort_error, passed in ((torch_error, True), (torch_error + 0.01, False)):
        (output,) = settled(case_of(exact, torch_error, ort_error))
        assert (output.passed, output.noise.ratio) == (passed, None)


class AsksForDtype(nn.Module):
    """In float64 it is another model: 4 % off, which is no rounding of anyone's; the exported one is 12 % off."""

    def forward(self, x):
        if torch.onnx.is_in_onnx_export():
            return x * 1.12
        return x * (1.0 if x.dtype is torch.float32 else 1.04)


class FillsWithLeast(nn.Module):
    """The number that masks are made of; in float64 it is 1e270 times as large."""

    def forward(self, x):
        return torch.where(x > 0, x, torch.finfo(x.dtype).min)


def test_a_forward_that_asks_for_its_dtype_forgives_no_wrong_export(tmp_path):
    result = run_export(make_spec(), tmp_path, AsksForDtype().eval(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed


def test_a_number_that_only_float64_holds_is_no_measure_and_no_failure(tmp_path):
    result = run_export(make_spec(), tmp_path, FillsWithLeast().eval(), threads=1)
    assert (result.failure, result.cases[0].outputs[0].noise) == (None, None)


def test_an_error_that_shows_is_not_forgiven_for_pytorch_s_own():
    exact = draw(64, 64)
    for rms, verdict in ((2e-3, NoiseVerdict.right), (2e-2, NoiseVerdict.open)):
        (output,) = settled(case_of(exact, noisy(rms, 64, 64), noisy(rms, 64, 64, seed=2), TIGHT))
        assert (output.passed, output.noise.verdict) == (verdict is NoiseVerdict.right, verdict)


def test_what_is_not_finite_in_the_same_places_is_not_measured():
    exact = np.array([1.0, np.inf, np.nan, 2.0])
    same, other = exact.astype(np.float32), np.array([1, -np.inf, np.nan, 2], np.float32)
    assert measure_noise(same, same, exact, LOOSE).num_elements == 2
    assert measure_noise(same, other, exact, LOOSE) is None
    assert measure_noise(other, same, exact, LOOSE) is None
    assert measure_noise(same, same, np.array([1.0, 2, 3, 4]), LOOSE) is None
    assert measure_noise(np.array([1, 9, 9, 2], np.float32), same, exact, LOOSE) is None


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.bool_])
def test_only_float32_has_a_noise_floor(dtype):
    array = np.ones(100, dtype)
    assert measure_noise(array, array, array.astype(np.float64), LOOSE) is None
    assert measure_noise(*[np.zeros(0, np.float32)] * 2, np.zeros(0), LOOSE) is None
