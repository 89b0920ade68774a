"""Sums over a result, and what they are where nothing was measured."""

from dataclasses import replace

import pytest

from exporter import Failure, FailureKind, Step
from exporter.evidence import CaseRecord, OutputParity
from exporter.result import FileRecord, StepRecord


def output(diff, *, passed=True):
    return OutputParity(
        output="y", passed=passed, num_elements=1, num_mismatched=0, max_abs_diff=diff, max_rel_diff=diff
    )


def case(*outputs):
    return CaseRecord(name="c", sizes={}, seed=0, outputs=list(outputs))


@pytest.mark.parametrize(
    ("cases", "largest"),
    [
        ([], None),
        ([case()], None),
        ([case(output(None))], None),
        ([case(output(0.0))], 0.0),
        ([case(output(0.5), output(None)), case(output(0.75)), case(output(0.25))], 0.75),
    ],
)
def test_the_largest_difference_is_over_all_cases_and_outputs(perceptron, cases, largest):
    result = replace(perceptron.result, cases=cases)
    assert (result.max_abs_diff, result.max_rel_diff) == (largest, largest)


def test_a_case_passes_only_if_all_its_outputs_do():
    assert case(output(0), output(0)).passed
    assert not case(output(0), output(0, passed=False)).passed


def test_the_size_is_that_of_graph_and_data(perceptron):
    files = [FileRecord(path=path, size_bytes=size, sha256="") for path, size in PATHS.items()]
    assert replace(perceptron.result, files=files).size_bytes == 11
    assert replace(perceptron.result, files=[]).size_bytes == 0


PATHS = {"model.onnx": 1, "model.onnx.data": 10, "report.md": 100}


def test_peaks_are_the_highest_of_their_steps_above_the_baseline(perceptron):
    peaks = {Step.build: 50, Step.capture: 90, Step.save: None, Step.parity: 70, Step.measure: 10}
    steps = [StepRecord(step=step, duration_s=0, peak_rss_bytes=peak) for step, peak in peaks.items()]
    result = replace(perceptron.result, steps=steps, baseline_rss_bytes=30)
    assert (result.export_peak_bytes, result.parity_peak_bytes) == (60, 40)
    assert result.peak_bytes(Step.measure) == 0
    assert result.peak_bytes(Step.save) is None
    assert result.peak_bytes(Step.optimize) is None


@pytest.mark.parametrize(("peak", "start", "delta"), [(90, 30, 60), (30, 31, 0), (None, 30, None), (90, None, None)])
def test_the_delta_of_a_step_is_its_peak_above_its_start(peak, start, delta):
    total = StepRecord(step=Step.save, duration_s=0, peak_rss_bytes=peak, start_rss_bytes=start)
    anonymous = StepRecord(
        step=Step.save, duration_s=0, peak_rss_bytes=None, start_anon_bytes=start, peak_anon_bytes=peak
    )
    assert (total.delta_bytes, total.delta_anon_bytes) == (delta, None)
    assert (anonymous.delta_bytes, anonymous.delta_anon_bytes) == (None, delta)


@pytest.mark.parametrize(("step", "text"), [(Step.check, "check: killed: why"), (None, "start: killed: why")])
def test_a_failure_reads_as_step_kind_and_cause(step, text):
    assert str(Failure(step=step, kind=FailureKind.killed, cause="why", hint="")) == text


def test_the_largest_noise_ratio_is_over_what_is_known(perceptron):
    assert 0 < perceptron.result.max_noise_ratio < 4
    known = perceptron.result.cases[0].outputs[0]
    noises = [replace(known.noise, ratio=ratio) for ratio in (2.0, None, 5.0)]
    outputs = [replace(known, noise=noise) for noise in (*noises, None)]
    assert replace(perceptron.result, cases=[case(*outputs[:2]), case(*outputs[2:])]).max_noise_ratio == 5
    assert replace(perceptron.result, cases=[case(outputs[1], outputs[3])]).max_noise_ratio is None
