"""The numbers that trackers compare: what was measured is there, what was not is left out."""

from batch_data import make_spec

from exporter.conductor import describe_result
from exporter.result import Step, StepRecord
from registry_sync.metrics import collect_step_metrics


def test_a_steps_memory_is_told_as_far_as_it_was_measured():
    steps = [
        StepRecord(step=Step.build, duration_s=0.5, peak_rss_bytes=None),
        StepRecord(
            step=Step.save,
            duration_s=2.0,
            peak_rss_bytes=90,
            start_rss_bytes=40,
            start_anon_bytes=10,
            peak_anon_bytes=15,
        ),
    ]
    result = describe_result(make_spec("good"), None, 0.0, steps=steps, baseline_rss_bytes=30)
    assert collect_step_metrics(result) == {
        "build_s": 0.5,
        "save_s": 2.0,
        "save_peak_bytes": 60,
        "save_delta_bytes": 50,
        "save_delta_anon_bytes": 5,
    }
