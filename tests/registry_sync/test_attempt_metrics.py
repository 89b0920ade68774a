"""What trackers compare over time."""

from batch_data import make_spec

from exporter.conductor import describe_result
from exporter.result import Step, StepRecord
from registry_sync.metrics import collect_step_metrics


def test_a_step_that_ran_in_two_attempts_has_the_sum_of_their_times_and_the_larger_peak() -> None:
    steps = [
        StepRecord(step=Step.capture, duration_s=1.5, peak_rss_bytes=300, attempt=1),
        StepRecord(step=Step.capture, duration_s=2.0, peak_rss_bytes=200, attempt=2),
    ]
    result = describe_result(make_spec("two"), None, 0.0, steps=steps, baseline_rss_bytes=100)
    assert collect_step_metrics(result) == {"capture_s": 3.5, "capture_peak_bytes": 200}


def test_of_memory_the_largest_of_all_attempts_counts_in_whichever_it_was() -> None:
    def step(attempt: int, start: int, peak: int, anon: int, cuda: int) -> StepRecord:
        return StepRecord(
            step=Step.capture,
            duration_s=1.0,
            attempt=attempt,
            peak_rss_bytes=peak,
            start_rss_bytes=start,
            start_anon_bytes=0,
            peak_anon_bytes=anon,
            cuda_peak_bytes=cuda,
        )

    result = describe_result(make_spec("two"), None, 0.0, steps=[step(1, 100, 900, 70, 5), step(2, 850, 900, 80, 4)])
    metrics = collect_step_metrics(result)
    assert metrics["capture_delta_bytes"] == 800
    assert metrics["capture_delta_anon_bytes"] == 80
    assert metrics["capture_cuda_peak_bytes"] == 5
