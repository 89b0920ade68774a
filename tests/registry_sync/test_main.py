"""The command `python -m registry_sync`, called in this process."""

from pathlib import Path

import pytest
from batch_data import make_run

from registry_sync.__main__ import main


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
