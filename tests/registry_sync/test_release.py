"""Releases of finished batches on the disk: what is written, when, and what a killed process leaves."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from release_batch import CAUSE, finish_batch, make_options, publish

from exporter.errors import ExitCode, FailureKind
from exporter.failure_fingerprint import take_failure_fingerprint
from registry_sync.__main__ import main
from registry_sync.bounded import Budget
from registry_sync.options import TrackingOptions
from registry_sync.release import ReleaseReport, make_release
from registry_sync.release_manifest import Manifest, ReleaseDirectory, Verdict, find_releases
from registry_sync.release_options import KnownFailure, ReleaseBudgets, ReleaseOptions

RELEASES = Path("releases")
OFF = TrackingOptions(mlflow=False, dvc=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def release(*passed: str, options: ReleaseOptions | None = None, **batch: object) -> ReleaseReport:
    run, record = finish_batch(*passed, **batch)
    return make_release(run, record, options or make_options(), RELEASES, tracking=OFF, budget=Budget(60))


def read_last() -> tuple[ReleaseDirectory, Manifest]:
    return find_releases(RELEASES)[-1]


def list_releases() -> list[str]:
    return sorted(path.name for path in RELEASES.glob("*") if not path.name.startswith("."))


def test_a_release_is_written_with_all_its_files_and_sums_that_hold() -> None:
    publish("mlp")
    report = release("mlp", failed=("bert",), options=make_options(version="1.0"))
    assert list_releases() == ["zoo-1.0"]
    directory, manifest = read_last()
    assert {path.name for path in directory.path.iterdir()} == {
        *("manifest.json", "SHA256SUMS", "bom.cdx.json", "changes.md", "changes.html"),
    }
    assert manifest.git_commit == "c" * 40
    assert [model.verdict for model in manifest.models] == [Verdict.accepted, Verdict.failed]
    assert manifest.exports == "exports"
    assert report.code is ExitCode.EXPORT_FAILED
    assert report.lines[0] == "release: zoo-1.0, releases/zoo-1.0/changes.html"
    assert report.lines[1].startswith("  bert: failed: new failure, unsupported_op (")
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", str(directory.sums)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    checked = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert {"releases/zoo-1.0/manifest.json", "exports/mlp/model.onnx", "exports/mlp/result.json"} <= checked


def test_nothing_new_makes_no_release_and_says_so() -> None:
    publish("mlp")
    release("mlp")
    before = list_releases()
    report = release(up_to_date=("mlp",))
    assert report.lines == [f"release: nothing new since {before[0]}"]
    assert report.code is ExitCode.OK
    assert list_releases() == before


def test_a_version_that_is_asked_for_is_made_where_nothing_is_new_and_once() -> None:
    publish("mlp")
    release("mlp", options=make_options(version="nightly"))
    for _ in range(2):
        assert release(up_to_date=("mlp",), options=make_options(version="1.0")).code is ExitCode.OK
    assert list_releases() == ["zoo-1.0", "zoo-nightly"]
    assert read_last()[1].previous == "nightly"
    report = release(up_to_date=("mlp",))
    assert report.lines == ["release: nothing new since zoo-1.0"]


def test_a_page_that_is_made_again_is_nothing_new_and_no_damage(capsys: pytest.CaptureFixture[str]) -> None:
    directory = publish("mlp")
    directory.graph.write_text("<p>graph</p>")
    release("mlp", options=make_options(version="1"))
    assert not {path.name for path in directory.pages} & {file.path for file in read_last()[1].models[0].files}
    directory.page.write_text("<p>of a newer version</p>")
    assert release(up_to_date=("mlp",)).lines == ["release: nothing new since zoo-1"]
    assert main(["verify"]) == 0
    assert "releases/zoo-1: ok, 1 in exports" in capsys.readouterr().out


def test_a_release_that_was_not_written_is_made_up_for_when_all_is_up_to_date() -> None:
    publish("mlp")
    release(up_to_date=("mlp",))
    assert len(list_releases()) == 1


def test_releases_of_one_day_are_numbered() -> None:
    for number in range(3):
        publish("mlp", b"%d graph" % number)
        release("mlp")
    day = read_last()[1].created_at[:10].replace("-", ".")
    assert list_releases() == [f"zoo-{day}", f"zoo-{day}.2", f"zoo-{day}.3"]
    _, manifest = read_last()
    assert (manifest.version, manifest.previous) == (f"{day}.3", f"{day}.2")
    assert manifest.models[0].baseline == f"{day}.2"


def test_a_clock_that_was_wrong_once_does_not_hide_what_comes_after() -> None:
    publish("mlp")
    release("mlp", options=make_options(version="1"))
    directory, manifest = read_last()
    directory.write_manifest(dataclasses.replace(manifest, created_at="2099-01-01T00:00:00.000+00:00"))
    publish("mlp", b"another graph")
    options = {"budgets": ReleaseBudgets(max_size_change_percent=None)}
    release("mlp", options=make_options(version="2", **options))
    assert read_last()[1].version == "2"
    assert read_last()[1].created_at == "2099-01-01T00:00:00.001+00:00"
    report = release(up_to_date=("mlp",), options=make_options(**options))
    assert report.lines == ["release: nothing new since zoo-2"]


def test_a_version_that_is_taken_is_refused_and_stays_as_it_is() -> None:
    publish("mlp")
    release("mlp", options=make_options(version="1"))
    text = (RELEASES / "zoo-1/manifest.json").read_text()
    publish("mlp", b"another graph")
    report = release("mlp", options=make_options(version="1"))
    assert report.code is ExitCode.STORAGE
    assert "releases/zoo-1: is there already, with other content; choose another release.version" in report.lines[0]
    assert (RELEASES / "zoo-1/manifest.json").read_text() == text


def test_a_model_over_budget_is_refused_every_night_until_it_is_accepted() -> None:
    publish("mlp", b"1" * 1000)
    release("mlp", options=make_options(version="1"))
    publish("mlp", b"1" * 2000)
    report = release("mlp", options=make_options(version="2"))
    assert report.code is ExitCode.EXPORT_FAILED
    assert report.lines[1] == ("  mlp: over budget: size 0.977 KiB -> 1.95 KiB: +100.0 %, allowed are 5 %")
    # Nothing has changed since, and it is no better for that.
    report = release(up_to_date=("mlp",))
    assert report.code is ExitCode.EXPORT_FAILED
    assert report.lines[0] == "release: nothing new since zoo-2"
    # Another model has: the measure is still the release that was accepted.
    publish("bert")
    report = release("bert", up_to_date=("mlp",), options=make_options(version="3"))
    assert report.code is ExitCode.EXPORT_FAILED
    mlp = read_last()[1].find("mlp")
    assert mlp is not None
    assert (mlp.verdict, mlp.baseline, mlp.is_new) == (Verdict.over_budget, "1", False)
    report = release(up_to_date=("mlp", "bert"), options=make_options(version="4", accept=["mlp"]))
    assert report.code is ExitCode.OK
    assert report.lines[0] == "release: zoo-4, releases/zoo-4/changes.html"
    report = release(up_to_date=("mlp", "bert"))
    assert (report.code, report.lines) == (ExitCode.OK, ["release: nothing new since zoo-4"])


def test_a_wider_budget_accepts() -> None:
    publish("mlp", b"1" * 1000)
    release("mlp", options=make_options(version="1"))
    publish("mlp", b"1" * 2000)
    options = make_options(version="2", budgets=ReleaseBudgets(max_size_change_percent=200.0))
    assert release("mlp", options=options).code is ExitCode.OK
    mlp = read_last()[1].find("mlp")
    assert mlp is not None
    assert [(change.what, change.exceeded) for change in mlp.changes] == [("size", "")]


def test_a_model_that_has_left_the_release_is_named() -> None:
    publish("mlp")
    publish("bert")
    release("mlp", "bert", options=make_options(version="1"))
    release(up_to_date=("mlp",), options=make_options(version="2"))
    directory, manifest = read_last()
    assert manifest.removed == ["bert"]
    assert "| bert | no longer in the release |" in directory.notes.read_text()


def test_a_declared_failure_does_not_fail_the_release_until_it_expires() -> None:
    publish("mlp")
    fingerprint = take_failure_fingerprint(FailureKind.unsupported_op, CAUSE)
    known = KnownFailure("bert", fingerprint, "https://example.org/1", "2999-01-01")
    report = release("mlp", failed=("bert",), options=make_options(version="1", known_failures=[known]))
    assert (report.code, len(report.lines)) == (ExitCode.OK, 1)
    known.expires = "2026-01-01"
    report = release(up_to_date=("mlp",), failed=("bert",), options=make_options(version="2", known_failures=[known]))
    assert report.code is ExitCode.EXPORT_FAILED
    assert report.lines[1] == f"  bert: failed: expired failure, unsupported_op ({fingerprint})"


def test_damaged_bytes_are_not_released() -> None:
    directory = publish("mlp")
    directory.model.write_bytes(b"b graph")
    report = release("mlp")
    assert report.code is ExitCode.INTEGRITY
    assert report.lines == ["no release was made: exports/mlp: model.onnx not as recorded; nothing was released"]
    assert list_releases() == []


def test_a_broken_earlier_manifest_is_named() -> None:
    publish("mlp")
    release("mlp", options=make_options(version="1"))
    (RELEASES / "zoo-1/manifest.json").write_text("{")
    report = release("mlp")
    assert report.code is ExitCode.STORAGE
    assert "releases/zoo-1/manifest.json: not valid JSON" in report.lines[0]


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from release_batch import finish_batch, make_options
from registry_sync.bounded import Budget
from registry_sync import release_writer
from registry_sync.options import TrackingOptions
from registry_sync.release import make_release
calls = 0
def trace(event, arguments):
    global calls
    name = str(arguments[0]) if arguments else ""
    if event in ("open", "os.rename", "os.mkdir") and "releases" in name:
        calls += 1
        if calls == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
run, record = finish_batch("mlp")
sys.addaudithook(trace)
off = TrackingOptions(mlflow=False, dvc=False)
make_release(run, record, make_options(version="1"), Path("releases"), tracking=off, budget=Budget(60))
"""


def test_a_process_that_is_killed_at_any_moment_leaves_a_whole_release_or_none_and_the_next_run_makes_it() -> None:
    publish("mlp")
    program = _KILLED.format(path=[path for path in sys.path if path])
    left = set()
    for moment in range(1, 60):
        shutil.rmtree(RELEASES, ignore_errors=True)
        done = subprocess.run([sys.executable, "-c", program, str(moment)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        left.add(tuple(list_releases()))
        report = release(up_to_date=("mlp",), options=make_options(version="1"))
        assert report.code is ExitCode.OK
        assert list_releases() == ["zoo-1"]
        assert not list(RELEASES.glob(".new-*"))
        subprocess.run(["sha256sum", "-c", "--quiet", "releases/zoo-1/SHA256SUMS"], check=True)
    else:
        pytest.fail("it never came to its end")
    assert moment > 10
    assert left == {(), ("zoo-1",)}


def break_dvc(how: str) -> None:
    Path(".dvc").mkdir()
    if how == "config":
        Path(".dvc/config").write_text("['remote \"x\"']\n  bogus = 1\n")


@pytest.mark.parametrize("how", ["config", "no git"])
def test_a_release_that_dvc_cannot_be_asked_about_is_made_all_the_same(how: str) -> None:
    publish("mlp")
    break_dvc(how)
    run, record = finish_batch("mlp")
    tracking = TrackingOptions(mlflow=False)
    report = make_release(run, record, make_options(version="1"), RELEASES, tracking=tracking, budget=Budget(60))
    assert (report.code, report.is_behind) == (ExitCode.OK, True)
    assert report.lines[0].startswith("the release has no DVC hashes, and cannot be checked out: ")
    assert list_releases() == ["zoo-1"]


def test_without_dvc_it_is_not_asked() -> None:
    publish("mlp")
    break_dvc("config")
    report = release("mlp", options=make_options(version="1"))
    assert (report.code, report.is_behind) == (ExitCode.OK, False)
    assert [line for line in report.lines if "DVC" in line] == []


def test_releases_are_verified_where_dvc_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("mlp", options=make_options(version="1"))
    break_dvc("config")
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "DVC's cache was not looked at: " in out
    assert "releases/zoo-1: ok, 1 in exports" in out
