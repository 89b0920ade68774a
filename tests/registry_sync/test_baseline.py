"""What a batch is compared with: the release before it, model by model the last in which it was accepted."""

from dataclasses import replace
from pathlib import Path

import pytest
from records import FAILED, PASSED, make_batch
from release_data import make_manifest, make_model

from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.result import Step
from registry_sync.baseline import find_baseline
from registry_sync.changes import Baseline
from registry_sync.record import BatchRecord, Outcome, RunDirectory
from registry_sync.release_manifest import Manifest, ReleaseDirectory, Verdict

FAILURE = make_failure(Step.capture, FailureKind.unsupported_op, "no ONNX function for aten.mystery")
BATCH = replace(
    make_batch(
        replace(PASSED, id="mlp", size_bytes=1_500_000, num_nodes=100, max_abs_diff=1e-6, export_peak_bytes=100 << 20)
    ),
    name="zoo",
    release="zoo",
    run_id="20260105-000000-0000",
    started_at="2026-01-05T00:00:00.000+00:00",
)


def release(root: Path, day: int, *models: object, **changes: object) -> Manifest:
    made = {"version": str(day), "created_at": f"2026-01-{day:02}T00:00:00.000+00:00", "models": list(models)}
    manifest = make_manifest(**made | changes)
    directory = ReleaseDirectory(root / "releases" / manifest.title)
    directory.path.mkdir(parents=True)
    directory.write_manifest(manifest)
    return manifest


def find(root: Path, record: BatchRecord = BATCH) -> Baseline | None:
    return find_baseline(RunDirectory(root / "runs" / record.run_id), record, root / "releases")


def write_summary(root: Path, record: BatchRecord) -> None:
    run = RunDirectory(root / "runs" / record.run_id)
    run.path.mkdir(parents=True)
    run.write_summary(record)


def test_a_release_is_compared_with_the_last_one_of_its_name(tmp_path: Path) -> None:
    release(tmp_path, 1, make_model())
    release(tmp_path, 2, make_model())
    release(tmp_path, 3, make_model(), name="zoo-small")
    found = find(tmp_path)
    assert found is not None
    assert found.title == "release zoo-2"
    assert found.others == {}
    # PASSED took 12.34 s, and 1.23 ms a call.
    assert found.describe_change(BATCH.exports[0]) == "size +50 %, time +311 %, latency -88 %"


def test_each_export_is_compared_with_the_release_in_which_it_was_accepted_last(tmp_path: Path) -> None:
    release(tmp_path, 1, make_model("mlp"), make_model("bert"), make_model("vit"))
    release(tmp_path, 2, make_model("mlp"))
    refused = make_model("mlp", verdict=Verdict.over_budget, baseline="2")
    failed = make_model("bert", verdict=Verdict.failed, failure=FAILURE)
    release(tmp_path, 3, refused, failed, make_model("vit"))
    exports = [replace(BATCH.exports[0], id=name) for name in ("mlp", "bert", "vit", "new")]
    found = find(tmp_path, replace(BATCH, exports=exports))
    assert found is not None
    assert found.title == "release zoo-3"
    assert found.others == {"mlp": "zoo-2", "bert": "zoo-1"}
    assert [found.describe_change(export) == "first time" for export in exports] == [False, False, False, True]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(FailureKind.unsupported_op, Outcome.failed), (FailureKind.parity_unsupported, Outcome.unproven)],
)
def test_what_was_never_accepted_is_told_from_what_is_new(tmp_path: Path, kind: FailureKind, outcome: Outcome) -> None:
    failure = make_failure(Step.parity, kind, "why")
    release(tmp_path, 1, make_model("vit", verdict=Verdict.failed, failure=failure))
    now = replace(FAILED, outcome=outcome)
    found = find(tmp_path, replace(BATCH, exports=[now]))
    assert found is not None
    assert found.describe_change(now) == "as before"


def test_a_release_that_was_made_later_or_by_the_batch_itself_is_no_measure(tmp_path: Path) -> None:
    release(tmp_path, 1, make_model())
    release(tmp_path, 5, make_model(), created_at="2026-01-05T00:10:00.000+00:00", run_id=BATCH.run_id)
    release(tmp_path, 6, make_model())
    found = find(tmp_path)
    assert found is not None
    assert found.title == "release zoo-1"


def test_the_last_release_is_the_one_that_was_made_last_whatever_its_version_is(tmp_path: Path) -> None:
    for day, version in enumerate(("9", "10", "2"), start=1):
        release(tmp_path, day, make_model(), version=version)
    found = find(tmp_path)
    assert found is not None
    assert found.title == "release zoo-2"


def test_a_manifest_is_read_only_while_there_is_an_export_to_be_found(tmp_path: Path, monkeypatch) -> None:
    release(tmp_path, 1, make_model("mlp"), make_model("bert"))
    for day in range(2, 5):
        release(tmp_path, day, make_model("mlp"))
    read: list[str] = []
    read_manifest = ReleaseDirectory.read_manifest

    def note(directory: ReleaseDirectory) -> Manifest:
        read.append(directory.path.name)
        return read_manifest(directory)

    monkeypatch.setattr(ReleaseDirectory, "read_manifest", note)
    find(tmp_path)
    assert read == ["zoo-4"]
    found = find(tmp_path, replace(BATCH, exports=[replace(PASSED, id=name) for name in ("mlp", "bert")]))
    assert read[1:] == ["zoo-4", "zoo-3", "zoo-2", "zoo-1"]
    assert found is not None
    assert found.others == {"bert": "zoo-1"}


def test_of_hundreds_of_releases_the_newer_ones_are_read(tmp_path: Path) -> None:
    failed = make_model("vit", verdict=Verdict.failed, failure=FAILURE)
    release(tmp_path, 1, make_model("vit"), version="0", created_at="2025-01-01")
    for number in range(1, 40):
        release(tmp_path, 1, failed, version=str(number), created_at=f"2025-02-{number:02}")
    found = find(tmp_path, replace(BATCH, exports=[replace(FAILED, id="vit")]))
    assert found is not None
    assert (found.title, found.others) == ("release zoo-39", {})
    assert found.describe_change(replace(FAILED, id="vit")) == "as before"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 999}', '{"schema_version": 1}', "\xff"])
def test_a_broken_manifest_is_passed_over(tmp_path: Path, text: str) -> None:
    release(tmp_path, 1, make_model())
    release(tmp_path, 2, make_model())
    (tmp_path / "releases/zoo-2/manifest.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "releases/zoo-3").mkdir()
    (tmp_path / "releases/zoo-4").write_text("no directory")
    found = find(tmp_path)
    assert found is not None
    assert found.title == "release zoo-1"


def test_the_first_release_is_compared_with_the_last_batch_of_its_name(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    write_summary(tmp_path, replace(BATCH, run_id="20260104-000000-0000"))
    found = find(tmp_path)
    assert found is not None
    assert found.title == "batch 20260104-000000-0000"
    assert found.describe_change(BATCH.exports[0]) == "as before"


def test_a_batch_that_is_no_release_is_not_compared_with_one(tmp_path: Path) -> None:
    release(tmp_path, 1, make_model())
    record = replace(BATCH, release=None)
    assert find(tmp_path, record) is None
    write_summary(tmp_path, replace(record, run_id="20260104-000000-0000"))
    found = find(tmp_path, record)
    assert found is not None
    assert found.title == "batch 20260104-000000-0000"
