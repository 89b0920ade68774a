import json
from pathlib import Path

import pytest

from exporter.errors import FailureKind
from exporter.plain_data import DataError
from exporter.result import Failure, Step
from registry_sync.changes import Baseline, Reading
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.summary import render_summary


def make_export(name: str, outcome: Outcome, **changes: object) -> ExportRecord:
    values = {
        "id": name,
        "model": name,
        "outcome": outcome,
        "directory": f"exports/{name}",
        "opset_version": 20,
        "precision": "fp32",
        **changes,
    }
    return ExportRecord(**values)


def make_batch(*exports: ExportRecord) -> BatchRecord:
    return BatchRecord(
        run_id="20260101-000000-abcd",
        name="zoo",
        release="zoo",
        command=["+release=zoo"],
        started_at="2026-01-01T00:00:00.000+00:00",
        ended_at="2026-01-01T00:01:00.000+00:00",
        duration_s=60.0,
        exit_code=0,
        git_commit="",
        exports=list(exports),
        tracking=TrackingOptions(),
    )


def test_a_summary_comes_back_as_it_was_written(tmp_path: Path) -> None:
    failure = Failure(step=Step.check, kind=FailureKind.dim_narrowed, cause="3 to any", hint="narrow the dim")
    record = make_batch(
        make_export("mlp", Outcome.passed, max_abs_diff=1e-7), make_export("bert", Outcome.failed, failure=failure)
    )
    run = RunDirectory(tmp_path)
    run.write_summary(record)
    assert run.read_summary() == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 999}', "\xff"])
def test_a_broken_or_newer_summary_is_named(tmp_path: Path, text: str) -> None:
    run = RunDirectory(tmp_path)
    run.summary.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"summary\.json"):
        run.read_summary()


def test_an_unknown_key_in_a_summary_is_named(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_summary(make_batch())
    data = json.loads(run.summary.read_text())
    run.summary.write_text(json.dumps({**data, "colour": "red"}))
    with pytest.raises(DataError, match="unknown key 'colour'"):
        run.read_summary()


@pytest.mark.parametrize(
    ("outcomes", "has_news"),
    [
        ([Outcome.up_to_date, Outcome.cancelled], False),
        ([Outcome.up_to_date, Outcome.passed], True),
        ([Outcome.failed], True),
        ([], False),
    ],
)
def test_a_batch_has_news_if_an_export_was_carried_out(outcomes: list[Outcome], has_news: bool) -> None:
    record = make_batch(*(make_export(f"m{i}", outcome) for i, outcome in enumerate(outcomes)))
    assert record.has_news is has_news


def say(*arguments: object, **options: object) -> str:
    """The note with all its spaces alike."""
    return render_summary(*arguments, **options).replace("\N{NO-BREAK SPACE}", " ")


def test_the_note_lists_failed_exports_first_with_their_kind() -> None:
    failure = Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="x", hint="y")
    note = render_summary(
        make_batch(make_export("mlp", Outcome.passed), make_export("bert", Outcome.failed, failure=failure))
    )
    rows = [line for line in note.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| bert | failed |")
    assert "parity: parity_failed" in rows[1]
    assert rows[2].startswith("| mlp | passed |")
    assert "1 passed, 1 failed" in note


def test_the_note_names_the_release_that_it_compares_with() -> None:
    now = [make_export(name, Outcome.passed, num_nodes=12) for name in ("mlp", "bert")]
    before = {name: Reading(outcome=Outcome.passed, num_nodes=10) for name in ("mlp", "bert")}
    note = say(make_batch(*now), baseline=Baseline("release zoo-2", before, {"bert": "zoo-1"}))
    assert "Changes are since release zoo-2. A row that names another release" in note
    assert "| nodes +2 |" in note
    assert "| nodes +2 (zoo-1) |" in note
    assert "Changes are since batch 1." in say(make_batch(*now), baseline=Baseline("batch 1", before))
    assert "No earlier batch of this name is known." in say(make_batch(*now))


def test_the_note_has_what_decides_first_and_numbers_that_stay_on_one_line() -> None:
    now = make_export("mlp", Outcome.passed, max_abs_diff=8.4e6, size_bytes=3 << 20, duration_s=61.0)
    reading = Reading(outcome=Outcome.passed, size_bytes=2 << 20, duration_s=610.0)
    batch = make_batch(now, make_export("vit", Outcome.up_to_date), make_export("bert", Outcome.failed))
    lines = render_summary(batch, baseline=Baseline("release zoo-2", {"mlp": reading}), page="#/page").splitlines()
    assert lines[0].endswith(" · [as a page](#/page)")
    assert lines[2] == "Changes are since release zoo-2."
    assert lines[4].startswith("| export | verdict | change | why | max_abs_diff |")
    assert lines[5] == "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|"
    assert [line.split(" | ")[0] for line in lines[6:9]] == ["| bert", "| mlp", "| vit"]
    assert lines[7].replace("\N{NO-BREAK SPACE}", "_") == (
        "| mlp | passed | size_+50_%, time_-90_% |  | 8.4_million |  |  | 3.00_MiB |  | 61.0_s | 20 | fp32 |"
    )
