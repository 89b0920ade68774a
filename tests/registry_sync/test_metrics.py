"""The numbers that trackers compare: what was measured is there, what was not is left out."""

from batch_data import make_spec

from exporter.conductor import describe_result
from exporter.result import Step, StepRecord, TorchScriptRecord
from registry_sync.metrics import collect_batch_metrics, collect_metrics, collect_step_metrics
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome


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


def test_a_batch_is_told_by_counts_sums_and_the_worst_of_its_exports():
    def export(name, outcome, **changes):
        return ExportRecord(
            id=name, model=name, outcome=outcome, directory=name, opset_version=20, precision="fp32", **changes
        )

    record = BatchRecord(
        run_id="r",
        name="zoo",
        release="zoo",
        command=[],
        started_at="",
        ended_at="",
        duration_s=9.0,
        exit_code=1,
        git_commit="",
        exports=[
            export("a", Outcome.passed, size_bytes=10, duration_s=2.0, export_peak_bytes=70, latency_s=0.5),
            export("b", Outcome.up_to_date, size_bytes=5, duration_s=3.0, export_peak_bytes=90),
            export("c", Outcome.failed, size_bytes=99, duration_s=4.0),
        ],
        tracking=TrackingOptions(),
    )
    metrics = collect_batch_metrics(record, {"a": describe_result(make_spec("a"), None, 0.0)})
    assert metrics == {
        "num_passed": 1,
        "num_up_to_date": 1,
        "num_failed": 1,
        "num_unproven": 0,
        "num_cancelled": 0,
        "num_exports": 3,
        "num_rescued": 0,
        "duration_s": 9.0,
        "sum_duration_s": 6.0,
        "sum_size_bytes": 15,
        "worst_export_peak_bytes": 90,
        "worst_latency_s": 0.5,
    }
