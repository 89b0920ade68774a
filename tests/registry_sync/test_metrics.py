"""The numbers that trackers compare: what was measured is there, what was not is left out."""

from batch_data import make_spec

from exporter.conductor import describe_result
from exporter.result import Step, StepRecord, TorchScriptRecord
from registry_sync.metrics import collect_metrics, collect_step_metrics


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


def test_a_comparison_with_torchscript_is_told_as_far_as_it_was_measured():
    record = TorchScriptRecord(peak_bytes=200, duration_s=3.0, dynamo_peak_bytes=50, dynamo_duration_s=1.0)
    metrics = collect_metrics(describe_result(make_spec("good"), None, 0.0, torchscript=record))
    assert metrics["dynamo_share_of_torchscript_peak"] == 0.25
    assert (metrics["torchscript_peak_bytes"], metrics["dynamo_peak_bytes"]) == (200, 50)
    failed = TorchScriptRecord(dynamo_peak_bytes=50, dynamo_duration_s=1.0, reason="TorchScript: no")
    metrics = collect_metrics(describe_result(make_spec("good"), None, 0.0, torchscript=failed))
    assert metrics["dynamo_peak_bytes"] == 50
    assert not [name for name in metrics if "torchscript" in name]
