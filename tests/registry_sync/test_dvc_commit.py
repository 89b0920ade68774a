"""Commits in a real DVC repository."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from batch_data import make_run
from dvc_folder import dvc, git, make_repository

from exporter.errors import SyncError
from exporter.files import write_json
from registry_sync import dvc_commit
from registry_sync.__main__ import main
from registry_sync.record import BatchRecord, Outcome, RunDirectory
from registry_sync.tracker import Tracker

# pygtrie's, of which DVC makes its graph.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")

STAGES = {
    "stages": {
        "export": {
            "matrix": {"model": ["good"]},
            "cmd": "false",
            "deps": ["conf"],
            "outs": [{"exports/${item.model}": {"persist": True}}],
        }
    }
}
RUN = RunDirectory(Path("runs/20260101-000000-abcd"))
HOLD_LOCK = """
import sys
from dvc.repo import Repo
with Repo(".").lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchRecord:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    Path("conf").mkdir()
    Path("conf/config.yaml").write_text("a: 1")
    record = make_run(tmp_path).read_summary()
    Path("metrics").mkdir()
    write_json(Path("metrics/good.json"), {"size_bytes": 4})
    return begin_later(record)


def commit_exports(record: BatchRecord) -> Iterator[str]:
    """All that a batch tells of DVC and git, in that order."""
    problem = None
    try:
        yield from dvc_commit.commit_exports(record)
    except SyncError as error:
        problem = error
    if line := dvc_commit.suggest_git(record):
        yield line
    if problem is not None:
        raise problem


def begin_later(record: BatchRecord) -> BatchRecord:
    """As if the batch had begun after all that was written until now, and soon after."""
    later = datetime.now(UTC) + timedelta(seconds=60)
    record = dataclasses.replace(record, started_at=later.isoformat())
    RUN.write_summary(record)
    return record


def write_stages(stages: object = STAGES) -> None:
    Path("dvc.yaml").write_text(yaml.safe_dump(stages))


def up_to_date(record: BatchRecord) -> BatchRecord:
    exports = [dataclasses.replace(export, outcome=Outcome.up_to_date) for export in record.exports[:1]]
    return dataclasses.replace(record, exports=exports)


def test_outside_of_a_repository_one_line_says_so(record: BatchRecord) -> None:
    (line,) = commit_exports(record)
    assert line.startswith("DVC: not a DVC repository; exports are not versioned")
    assert not Path("metrics.json").exists()


def test_a_stage_of_an_export_that_passed_is_committed(record: BatchRecord) -> None:
    make_repository()
    write_stages()
    told, _ = commit_exports(record)
    assert "1 of 1 exports committed" in told
    assert "exports/good" in Path("dvc.lock").read_text()
    assert "up to date" in dvc("status")
    assert not Path("exports/good.dvc").exists()


def test_a_stage_of_any_name_is_found_by_its_output(record: BatchRecord) -> None:
    make_repository()
    write_stages({"stages": {"mine": {"cmd": "false", "outs": ["exports/good"]}}})
    list(commit_exports(record))
    assert "mine" in Path("dvc.lock").read_text()
    assert "up to date" in dvc("status")


def test_an_export_without_a_stage_is_added(record: BatchRecord) -> None:
    make_repository()
    told, line = commit_exports(record)
    assert "1 of 1 exports committed" in told
    assert yaml.safe_load(Path("exports/good.dvc").read_text())["outs"][0]["path"] == "good"
    assert "exports/good.dvc" in line
    assert dvc("ls", ".", "exports", "--dvc-only").split() == ["good"]


def test_an_added_export_is_added_again_when_it_has_changed(record: BatchRecord) -> None:
    make_repository()
    list(commit_exports(record))
    before = Path("exports/good.dvc").read_text()
    Path("exports/good/model.onnx").write_bytes(b"other")
    write_json(Path("exports/good/result.json"), {"other": 1})
    list(commit_exports(record))
    assert Path("exports/good.dvc").read_text() != before
    assert "up to date" in dvc("status")


def test_where_exports_are_tracked_as_one_folder_that_is_committed(record: BatchRecord) -> None:
    make_repository()
    dvc("add", "-q", "exports")
    Path("exports/good/more").write_text("")
    list(commit_exports(record))
    assert not Path("exports/good.dvc").exists()
    assert "up to date" in dvc("status")


def test_an_export_with_a_stage_and_a_file_of_its_own_is_told_with_the_way_out(record: BatchRecord) -> None:
    make_repository()
    list(commit_exports(record))
    write_stages()
    with pytest.raises(SyncError, match=r"exports/good: belongs to .*; keep one: git rm .* exports/good\.dvc"):
        list(commit_exports(record))


def test_the_line_for_git_can_be_pasted_and_is_told_until_it_was(record: BatchRecord) -> None:
    make_repository()
    for number in range(5):
        write_json(Path(f"metrics/it's {number}.json"), {"size_bytes": number})
    *_, line = commit_exports(record)
    assert "'metrics/*.json'" in line
    assert list(commit_exports(record)) == [line]
    subprocess.run(["sh", "-c", line.removeprefix("git:    ")], check=True, env=os.environ)
    assert list(commit_exports(record)) == []
    assert git("status", "--porcelain", "--", "metrics", "metrics.json", "exports") == ""
    assert git("log", "-1", "--format=%s").strip() == "Export good"


def test_names_that_a_shell_would_read_are_quoted(record: BatchRecord) -> None:
    make_repository()
    Path("exports").rename("it's $HOME")
    exports = [dataclasses.replace(record.exports[0], directory="it's $HOME/good")]
    *_, line = commit_exports(dataclasses.replace(record, exports=exports))
    subprocess.run(["sh", "-c", line.removeprefix("git:    ")], check=True, env=os.environ)
    assert "it's $HOME/good.dvc" in git("ls-files")


@pytest.mark.parametrize("pattern", ["/exports/", "exports", "/exports/*/", "/exports/*\n!/exports/*.dvc"])
def test_where_git_ignores_what_dvc_writes_that_is_told_with_the_line_to_write(
    record: BatchRecord, pattern: str
) -> None:
    make_repository()
    Path(".gitignore").write_text(pattern)
    with pytest.raises(
        SyncError, match=r"exports/good: not versioned, because git ignores good\.dvc .* by /exports/\?\*/$"
    ):
        list(commit_exports(record))
    Path(".gitignore").write_text("/exports/?*/\n")
    told, line = commit_exports(record)
    assert "1 of 1" in told
    assert "exports/good.dvc" in line
    assert dvc("ls", ".", "exports", "--dvc-only").split() == ["good"]


def test_exports_outside_of_the_repository_are_told_once(
    record: BatchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    make_repository()
    outside = dataclasses.replace(record, exports=[dataclasses.replace(record.exports[0], directory="../exports/good")])
    (line,) = commit_exports(outside)
    assert "../exports/good is outside of" in line
    assert list(commit_exports(outside)) == []


def test_a_broken_dvc_yaml_is_told_and_named(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text("stages: [")
    with pytest.raises(SyncError, match=r"dvc\.yaml"):
        list(commit_exports(record))


def test_one_that_cannot_be_committed_does_not_keep_back_the_others(record: BatchRecord) -> None:
    make_repository()
    write_stages({"stages": {"mine": {"cmd": "false", "deps": ["missing"], "outs": ["exports/good"]}}})
    (Path("exports/other")).mkdir()
    exports = [*record.exports[:1], dataclasses.replace(record.exports[0], id="other", directory="exports/other")]
    lines = []
    with pytest.raises(SyncError, match=r"exports/good: .*missing"):
        lines.extend(commit_exports(dataclasses.replace(record, exports=exports)))
    assert Path("exports/other.dvc").exists()


def test_a_held_lock_is_told_and_the_next_batch_catches_up(record: BatchRecord) -> None:
    make_repository()
    write_stages()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SyncError, match=r"^DVC's lock is held by another process; is a dvc command at work\?$"):
            list(commit_exports(record))
        holder.communicate("")
    assert not Path("dvc.lock").exists()
    assert "1 of 1 exports committed" in next(commit_exports(up_to_date(record)))


def test_a_repository_whose_git_is_gone_is_told(record: BatchRecord) -> None:
    make_repository()
    Path(".git").rename("elsewhere")
    with pytest.raises(SyncError, match=r"is not a git repository, where DVC expects one: git init"):
        list(commit_exports(record))


def test_without_git_dvc_commits_and_nothing_is_said_of_git(record: BatchRecord) -> None:
    dvc("init", "-q", "--no-scm")
    (line,) = commit_exports(record)
    assert "1 of 1 exports committed" in line


@pytest.mark.parametrize("kinds", ["hardlink", "symlink", "reflink,hardlink,copy"])
def test_where_the_cache_makes_links_exports_stay_files_of_their_own(record: BatchRecord, kinds: str) -> None:
    make_repository()
    write_stages()
    dvc("config", "--local", "cache.type", kinds)
    _, told, _ = commit_exports(record)
    assert told.startswith(f"DVC: cache.type is {kinds}: dvc checkout would put links into exports/")
    model = Path("exports/good/model.onnx")
    assert model.stat().st_nlink == 1
    assert not model.is_symlink()
    assert os.access(model, os.W_OK)
    assert "up to date" in dvc("status")


def test_inside_of_dvc_repro_nothing_is_committed(record: BatchRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository()
    monkeypatch.setenv("DVC_STAGE", "export@good")
    assert list(commit_exports(record)) == []
    # DVC knows nothing of this one.
    assert Path("metrics.json").exists()


def test_what_an_earlier_batch_could_not_commit_is_committed_by_the_next(record: BatchRecord) -> None:
    make_repository()
    write_stages()
    later = up_to_date(record)
    assert "1 of 1 exports committed" in next(commit_exports(later))
    assert next(commit_exports(later)).startswith("git:")


@pytest.mark.parametrize("change", ["config", "lock", "export"])
def test_what_dvc_would_call_changed_is_committed(record: BatchRecord, change: str) -> None:
    make_repository()
    write_stages()
    list(commit_exports(record))
    if change == "config":
        Path("conf/new.yaml").write_text("defaults: []")
    elif change == "lock":
        # As `git checkout` does.
        Path("dvc.lock").unlink()
    else:
        write_json(Path("exports/good/result.json"), {"other": 1})
    assert "1 of 1 exports committed" in next(commit_exports(record))
    assert "up to date" in dvc("status")
    assert next(commit_exports(record)).startswith("git:")


def test_files_that_the_stage_does_not_watch_are_named(record: BatchRecord) -> None:
    make_repository()
    write_stages()
    Path("my_models.py").write_text("")
    Path("my.safetensors").write_text("")
    parts = {"code.my_models.py": "1", "code.conf/config.yaml": "1", "spec.model.weights": '"my.safetensors"'}
    write_json(Path("exports/good/fingerprint.json"), parts | {"code.modelpress": "1", "version.torch": "2"})
    lines = list(commit_exports(record))
    assert (
        "DVC: dvc repro does not see changes of my.safetensors, my_models.py; "
        "add to the deps of export@good in dvc.yaml" in lines
    )


def test_the_numbers_of_all_exports_are_gathered_for_plots(record: BatchRecord) -> None:
    make_repository()
    write_json(Path("metrics/a.json"), {"size_bytes": 1})
    Path("metrics/broken.json").write_text("{")
    list(commit_exports(record))
    rows = yaml.safe_load(Path("metrics.json").read_text())
    assert rows == [{"export": "a", "size_bytes": 1}, {"export": "good", "size_bytes": 4}]


def test_a_batch_is_behind_and_says_how_to_catch_up(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text("stages: [")
    options = dataclasses.replace(record.tracking, mlflow=False)
    report = Tracker(options).finish(RUN, record)
    assert report.is_behind
    assert "  catch up with: python -m registry_sync sync runs/20260101-000000-abcd" in report.lines


def test_an_export_of_what_was_changed_meanwhile_is_not_committed(record: BatchRecord) -> None:
    make_repository()
    write_stages()
    os.utime("conf/config.yaml", (time.time() + 120, time.time() + 120))
    with pytest.raises(SyncError, match=r"exports/good: conf/config.yaml was changed after the batch had begun; run"):
        list(commit_exports(record))
    assert not Path("dvc.lock").exists()
    later = datetime.now(UTC) + timedelta(seconds=240)
    again = dataclasses.replace(up_to_date(record), started_at=later.isoformat())
    assert "1 of 1 exports committed" in next(commit_exports(again))


@pytest.fixture
def synced(record: BatchRecord) -> BatchRecord:
    """MLflow has the batch already; DVC does not."""
    RUN.mlflow_marker.write_text("{}")
    return record


def test_sync_commits_what_a_killed_batch_left(synced: BatchRecord, capsys: pytest.CaptureFixture[str]) -> None:
    make_repository()
    write_stages()
    assert main(["sync"]) == 0
    told = capsys.readouterr().out
    assert "1 of 1 exports committed" in told
    assert told.splitlines()[-1].startswith("git:    git add dvc.lock ")
    assert "up to date" in dvc("status")
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "nothing to sync\n"


def test_sync_leaves_work_on_a_model_alone(synced: BatchRecord, capsys: pytest.CaptureFixture[str]) -> None:
    make_repository()
    write_stages()
    list(commit_exports(synced))
    before = Path("dvc.lock").read_text()
    Path("conf/config.yaml").write_text("a: 2")
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "nothing to sync\n"
    assert Path("dvc.lock").read_text() == before
    assert "changed deps" in dvc("status")


def test_sync_is_behind_where_dvc_is_and_says_why(synced: BatchRecord, capsys: pytest.CaptureFixture[str]) -> None:
    make_repository()
    Path("dvc.yaml").write_text("stages: [")
    assert main(["sync"]) == 6
    assert "DVC is behind: " in capsys.readouterr().err


def test_what_the_last_batch_kept_from_dvc_sync_does_too(
    synced: BatchRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    make_repository()
    later = RunDirectory(Path("runs/20260102-000000-abcd"))
    later.path.mkdir()
    later.mlflow_marker.write_text("{}")
    later.write_summary(dataclasses.replace(synced, tracking=dataclasses.replace(synced.tracking, dvc=False)))
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "nothing to sync\n"
    assert not Path("exports/good.dvc").exists()
