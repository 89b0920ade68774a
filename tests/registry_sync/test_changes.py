"""What a reviewer is told of the difference from an earlier batch."""

import dataclasses
from pathlib import Path

import pytest
from batch_data import make_run

from registry_sync.changes import Reading, describe_change, find_earlier_batch, read_export
from registry_sync.record import BatchRecord, Outcome, RunDirectory

BEFORE = Reading(
    outcome=Outcome.passed,
    max_abs_diff=1e-6,
    export_peak_bytes=100,
    size_bytes=1000,
    num_nodes=50,
    duration_s=10.0,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "as before"),
        ({"outcome": Outcome.up_to_date}, "as before"),
        ({"max_abs_diff": 1.9e-6, "export_peak_bytes": 109, "duration_s": 14.0}, "as before"),
        ({"max_abs_diff": 4e-6}, "diff x4"),
        ({"max_abs_diff": 1e-7}, "diff x0.1"),
        ({"max_abs_diff": None, "size_bytes": None}, "as before"),
        ({"size_bytes": 1120}, "size +12 %"),
        ({"size_bytes": 1002}, "size +0.2 %"),
        ({"size_bytes": 999.0}, "size -0.1 %"),
        ({"size_bytes": 1e9}, "size x1 million"),
        ({"export_peak_bytes": 8.43e8}, "peak x8.43 million"),
        ({"max_abs_diff": 1e30}, "diff x1e36"),
        ({"max_abs_diff": float("inf"), "max_noise_ratio": float("nan")}, "diff x\N{INFINITY}"),
        ({"num_nodes": 12_345}, "nodes +12,295"),
        ({"num_nodes": 47, "size_bytes": 1000}, "nodes -3"),
        ({"export_peak_bytes": 70, "duration_s": 18.0}, "peak -30 %, time +80 %"),
        ({"outcome": Outcome.failed, "size_bytes": 5}, "passed before"),
        ({"outcome": Outcome.cancelled}, ""),
    ],
)
def test_what_changed_is_said_and_what_comes_and_goes_by_itself_is_not(changes: dict[str, object], words: str) -> None:
    assert describe_change(dataclasses.replace(BEFORE, **changes), BEFORE) == words


def test_what_a_large_model_grew_by_is_told_in_bytes_where_that_is_no_percentage() -> None:
    now, before = (dataclasses.replace(BEFORE, size_bytes=size) for size in (3_000_000_012, 3_000_000_000))
    assert describe_change(now, before) == "size +12 B"
    assert describe_change(before, now) == "size -12 B"


def test_a_failure_is_told_from_one_that_is_new() -> None:
    failed = Reading(outcome=Outcome.failed)
    assert describe_change(failed, failed) == "as before"
    assert describe_change(BEFORE, failed) == "failed before"
    assert describe_change(failed, Reading(outcome=Outcome.unproven)) == "unproven before"
    assert describe_change(BEFORE, None) == "first time"


def write_batch(root: Path, run_id: str, **changes: object) -> BatchRecord:
    run = RunDirectory(root / "runs/20260101-000000-abcd")
    record = dataclasses.replace(run.read_summary(), run_id=run_id, **changes)
    other = RunDirectory(root / "runs" / run_id)
    other.path.mkdir()
    other.write_summary(record)
    return record


def test_the_last_batch_of_the_same_name_is_found(tmp_path: Path) -> None:
    make_run(tmp_path)
    record = write_batch(tmp_path, "20260105-000000-0000", release="zoo")
    run = RunDirectory(tmp_path / "runs" / record.run_id)
    assert find_earlier_batch(run, record) is None
    write_batch(tmp_path, "20260102-000000-0000", release="zoo")
    write_batch(tmp_path, "20260103-000000-0000", release="zoo")
    write_batch(tmp_path, "20260104-000000-0000", release="other")
    write_batch(tmp_path, "20260106-000000-0000", release="zoo")
    (tmp_path / "runs/20260104-120000-0000").mkdir()
    (tmp_path / "runs/20260104-120000-0000/summary.json").write_text("{")
    earlier = find_earlier_batch(run, record)
    assert earlier is not None
    assert earlier.title == "batch 20260103-000000-0000"
    assert earlier.exports == {export.id: read_export(export) for export in record.exports}
