"""The command `python -m registry_sync`, called in this process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_data import make_run
from project import make_environment

from registry_sync.__main__ import main

COMMAND = [sys.executable, "-u", "-m", "registry_sync"]
ENVIRONMENT = make_environment({"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sync_logs_pending_runs_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(here)
    assert main(["sync"]) == 0
    assert run.path.name in capsys.readouterr().out
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "nothing to sync\n"


def test_sync_of_something_that_is_no_run_is_a_usage_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "runs/nope"]) == 2
    assert "runs/nope: no summary.json there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["sync", "--budget-s", "URI"], ["verify", "--tracking-uri", "URI"], ["sync", "URI"], ["promote", "URI"]],
)
def test_no_complaint_repeats_a_password(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    try:
        code = main([one.replace("URI", "http://me:hunter2@127.0.0.1:1") for one in arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    err = capsys.readouterr().err
    assert err
    assert "hunter2" not in err


def test_sync_of_a_broken_summary_is_a_usage_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(here)
    run.summary.write_text("{")
    assert main(["sync", str(run.path)]) == 2
    assert "summary.json: not valid JSON" in capsys.readouterr().err


def test_verify_accepts_whole_exports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(here)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "exports/good: ok\n"


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "record"])
def test_verify_names_what_is_damaged(here: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    make_run(here)
    model = here / "exports/good/model.onnx"
    match damage:
        case "flip":
            model.write_bytes(b"onny")
        case "truncate":
            model.write_bytes(b"onn")
        case "remove":
            model.unlink()
        case "record":
            (here / "exports/good/result.json").write_text("{")
    assert main(["verify"]) == 7
    err = capsys.readouterr().err
    assert "exports/good: " in err
    assert ("result.json" if damage == "record" else "model.onnx") in err


def test_verify_of_nothing_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "nothing published\n"


def test_a_broken_run_does_not_keep_back_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(here)
    broken = here / "runs/20250101-000000-0000/summary.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert main(["sync"]) == 6
    told = capsys.readouterr()
    assert f"{run.path.name}: MLflow" in told.out
    assert "20250101-000000-0000/summary.json: not valid JSON" in told.err


def test_a_run_whose_results_are_gone_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(here)
    run.result("good").unlink()
    assert main(["sync"]) == 6
    assert "good.json" in capsys.readouterr().err


def test_a_store_that_is_a_directory_is_told_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(here)
    (here / "mlflow.db").mkdir()
    assert main(["sync"]) == 6
    assert "mlflow.db: is a directory" in capsys.readouterr().err


def test_verify_does_not_accept_an_export_that_failed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(here)
    assert main(["verify", "bad"]) == 7
    assert "bad: the export did not pass" in capsys.readouterr().err


def test_what_is_no_directory_is_a_usage_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(here)
    assert main(["sync", str(run.summary)]) == 2
    assert f"{run.summary}: no summary.json there" in capsys.readouterr().err


def test_what_the_system_refuses_is_told_in_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "loop").symlink_to("loop")
    assert main(["sync", "loop"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "loop" in line


def test_a_part_that_fails_does_not_keep_back_what_the_others_have_to_tell(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(here).result("good").unlink()
    # As if somebody had tidied up.
    (here / "releases/.lock").mkdir(parents=True)
    assert main(["sync"]) == 5
    told = capsys.readouterr().err
    assert "good.json" in told
    assert "releases/.lock" in told


def test_a_reader_that_goes_away_changes_nothing(here: Path) -> None:
    make_run(here)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "verify"], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_told_in_a_word(here: Path) -> None:
    summary = make_run(here).summary
    summary.unlink()
    # The command waits in it.
    os.mkfifo(summary)
    process = subprocess.Popen(
        [*COMMAND, "sync", str(summary.parent)], stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    writer = None
    while writer is None and process.poll() is None:
        try:
            writer = os.open(summary, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert (process.returncode, told) == (130, "interrupted\n")
    if writer is not None:
        os.close(writer)
