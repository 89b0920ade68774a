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
