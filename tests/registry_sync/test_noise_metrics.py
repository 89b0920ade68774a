"""The numbers that trackers compare are those of the result, and what was not measured is no number."""

from dataclasses import replace

import faulty_models

from exporter.evidence import CaseRecord, NoiseRecord, OutputParity, RoundingError
from exporter.result import ExportResult, Status
from registry_sync.metrics import collect_metrics

ERROR = RoundingError(rms=1e-8, max=2e-8, drift=0.0, in_tolerances=0.1)
NOISE = NoiseRecord(num_elements=16, scale=1.0, peak=2.0, torch=ERROR, ort=ERROR, ratio=1.5)


def result_with(noise):
    output = OutputParity(
        output="y", passed=True, num_elements=16, num_mismatched=0, max_abs_diff=0.5, max_rel_diff=None, noise=noise
    )
    return ExportResult(
        spec=faulty_models.make_spec(),
        status=Status.passed,
        started_at="",
        ended_at="",
        duration_s=1.0,
        cases=[CaseRecord(name="example", sizes={}, seed=0, outputs=[output])],
    )


def test_the_noise_ratio_is_logged_beside_the_difference():
    metrics = collect_metrics(result_with(NOISE))
    assert (metrics["max_abs_diff"], metrics["max_noise_ratio"]) == (0.5, 1.5)


def test_a_noise_ratio_that_is_not_known_is_left_out():
    for noise in (None, replace(NOISE, ratio=None)):
        assert "max_noise_ratio" not in collect_metrics(result_with(noise))
