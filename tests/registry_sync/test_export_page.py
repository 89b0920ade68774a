from pathlib import Path

import pytest
from report_data import HOSTILE, make_case, make_failed_result, make_output, make_result

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode
from exporter.files import write_json
from exporter.result import ExportResult
from registry_sync.__main__ import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def store(result: ExportResult, parent: str = "exports") -> Path:
    directory = ExportDirectory(Path(parent) / result.id)
    directory.path.mkdir(parents=True)
    write_json(directory.result, result)
    return directory.path


def show(capsys: pytest.CaptureFixture[str], name: str) -> str:
    assert main(["show", name]) is ExitCode.OK
    return capsys.readouterr().out


def test_an_export_is_shown_with_what_its_page_has(capsys):
    result = make_result("bert")
    store(result)
    told = show(capsys, "bert")
    assert told.startswith("bert: passed\nONNX Runtime agrees with PyTorch")
    for title in ("Parity", "Signature", "Sizes that were proven", "Memory and time", "Operators", "Files", "Versions"):
        assert f"\n{title}\n" in told, title
    for file in result.files:
        assert file.sha256 in told
    assert told.endswith("exports/bert/report.html\n")


def test_a_failed_export_is_shown_by_its_directory_with_what_to_do(capsys):
    result = make_failed_result("vit")
    told = show(capsys, str(store(result, "runs/1/exports")))
    assert told.startswith("vit: failed")
    assert f"cause: {result.failure.cause}" in told
    assert f"what to do: {result.failure.hint}" in told


def test_what_has_no_room_is_counted_and_what_cannot_be_seen_is_written_out(capsys):
    case = make_case("example", *[make_output(f"{HOSTILE[5]}{number}") for number in range(40)])
    store(make_result("many", cases=[case]))
    told = show(capsys, "many")
    assert "and 16 more" in told
    assert "\u202e" not in told
    assert "\\u202eexe" in told


def test_a_result_that_cannot_be_read_is_a_line(capsys):
    directory = store(make_result("bert"))
    (directory / "result.json").write_text("{")
    assert main(["show", "bert"]) is ExitCode.CONFIG
    assert capsys.readouterr().err.startswith("exports/bert/result.json: ")
    assert main(["show", "nothing"]) is ExitCode.CONFIG
