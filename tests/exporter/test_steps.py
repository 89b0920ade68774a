"""A step is timed, measured, and turns an exception into a failure once."""

import time

import numpy as np
import pytest

from exporter import memory
from exporter.errors import FailureKind, StepError
from exporter.result import Step
from exporter.steps import StepFailed, StepRecorder


def test_each_step_is_recorded_in_the_order_it_began():
    begun = []
    recorder = StepRecorder(begun.append)
    start = time.perf_counter()
    with recorder.step(Step.build):
        time.sleep(0.02)
    with recorder.step(Step.capture):
        pass
    elapsed = time.perf_counter() - start
    assert begun == [Step.build, Step.capture]
    assert [record.step for record in recorder.records] == begun
    assert recorder.records[0].duration_s >= 0.02
    assert sum(record.duration_s for record in recorder.records) <= elapsed


def test_a_step_is_announced_before_its_body_runs():
    seen = []
    recorder = StepRecorder(lambda step: seen.append(f"begin {step}"))
    with recorder.step(Step.save):
        seen.append("body")
    assert seen == ["begin save", "body"]


def test_an_exception_becomes_a_failure_and_stays_its_cause():
    recorder = StepRecorder()
    error = StepError(FailureKind.weights_error, "a.pt: misfit", "look")
    with pytest.raises(StepFailed) as caught, recorder.step(Step.build):
        raise error
    failure = caught.value.failure
    assert (failure.step, failure.kind) == (Step.build, FailureKind.weights_error)
    assert (failure.cause, failure.hint) == ("a.pt: misfit", "look")
    assert str(caught.value) == "build: weights_error: a.pt: misfit"
    assert caught.value.__cause__ is error


def test_a_failed_step_is_recorded_too():
    recorder = StepRecorder()
    with pytest.raises(StepFailed), recorder.step(Step.check):
        raise ValueError
    assert [record.step for record in recorder.records] == [Step.check]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_no_failure_of_a_step(kind):
    recorder = StepRecorder()
    with pytest.raises(kind), recorder.step(Step.parity):
        raise kind
    assert [record.step for record in recorder.records] == [Step.parity]


def test_the_peak_of_a_step_is_its_own():
    if not memory.reset_peak_rss():
        pytest.skip("this kernel does not let the high-water mark be reset")
    recorder = StepRecorder()
    with recorder.step(Step.build):
        np.ones(64 * 2**20, np.uint8)
    with recorder.step(Step.capture):
        pass
    build, capture = (record.peak_rss_bytes for record in recorder.records)
    assert build - capture > 50 * 2**20


def test_the_delta_of_a_step_is_above_its_own_start():
    if not memory.reset_peak_rss():
        pytest.skip("this kernel does not let the high-water mark be reset")
    recorder = StepRecorder()
    with recorder.step(Step.build):
        block = np.ones(64 * 2**20, np.uint8)
    with recorder.step(Step.capture):
        np.ones(32 * 2**20, np.uint8)
    for record, expected in zip(recorder.records, (64, 32), strict=True):
        assert expected - 4 < record.delta_bytes / 2**20 < expected + 4, block.size
    # The block of the second step may have come and gone between two samples.
    build, capture = (record.delta_anon_bytes / 2**20 for record in recorder.records)
    assert 60 < build < 68
    assert capture < 36
