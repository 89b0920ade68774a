"""Commits in a real DVC repository."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from batch_data import make_run
from project import make_environment

from exporter.errors import SyncError
from registry_sync.dvc_commit import commit_exports
from registry_sync.record import BatchRecord, Outcome

STAGES = {
    "stages": {
        "export": {
            "matrix": {"model": ["good"]},
            "cmd": "false",
            "outs": [{"exports/${item.model}": {"persist": True}}],
        }
    }
}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchRecord:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return make_run(tmp_path).read_summary()


def make_repository() -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, env=make_environment({}))


def test_outside_of_a_repository_one_line_says_so(record: BatchRecord) -> None:
    (line,) = commit_exports(record)
    assert line.startswith("DVC: not a DVC repository; exports are not versioned")


def test_a_stage_of_an_export_that_passed_is_committed(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (line,) = commit_exports(record)
    assert "1 of 1 exports committed" in line
    assert "exports/good" in Path("dvc.lock").read_text()
    done = subprocess.run([sys.executable, "-m", "dvc", "status"], capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout


def test_an_export_without_a_stage_is_named(record: BatchRecord) -> None:
    make_repository()
    (line,) = commit_exports(record)
    assert line == "DVC: no stage in dvc.yaml for good; not versioned"


def test_a_broken_dvc_yaml_is_told_and_named(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text("stages: [")
    with pytest.raises(SyncError, match=r"dvc\.yaml"):
        list(commit_exports(record))


def test_a_missing_output_gives_the_command_that_catches_up(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text(yaml.safe_dump(STAGES).replace("exports/", "elsewhere/"))
    with pytest.raises(SyncError, match="commit -f export@good"):
        list(commit_exports(record))


def test_inside_of_dvc_repro_nothing_is_committed(record: BatchRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository()
    monkeypatch.setenv("DVC_STAGE", "export@good")
    assert list(commit_exports(record)) == []


def test_what_an_earlier_batch_could_not_commit_is_committed_by_the_next(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text(yaml.safe_dump(STAGES))
    later = dataclasses.replace(
        record, exports=[dataclasses.replace(export, outcome=Outcome.up_to_date) for export in record.exports[:1]]
    )
    (line,) = commit_exports(later)
    assert "1 of 1 exports committed" in line
    assert list(commit_exports(later)) == []


def test_a_change_of_what_the_stage_depends_on_is_committed(record: BatchRecord) -> None:
    make_repository()
    Path("dvc.yaml").write_text(yaml.safe_dump(STAGES))
    list(commit_exports(record))
    Path("conf").mkdir()
    Path("conf/config.yaml").write_text("defaults: []")
    assert len(list(commit_exports(record))) == 1
    assert list(commit_exports(record)) == []
