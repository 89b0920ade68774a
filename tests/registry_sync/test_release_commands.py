"""`python -m registry_sync list, show, diff, verify` on releases, called in this process."""

import re
from pathlib import Path

import pytest
from release_batch import CAUSE, finish_batch, make_options, publish

from registry_sync.__main__ import main
from registry_sync.bounded import Budget
from registry_sync.options import TrackingOptions
from registry_sync.release import make_release
from registry_sync.release_manifest import ReleaseDirectory

RELEASES = Path("releases")
OFF = TrackingOptions(mlflow=False, dvc=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def release(version: str, *passed: str, failed: tuple[str, ...] = (), name: str = "zoo") -> ReleaseDirectory:
    run, record = finish_batch(*passed, failed=failed)
    make_release(run, record, make_options(version=version, name=name), RELEASES, tracking=OFF, budget=Budget(60))
    return ReleaseDirectory(RELEASES / f"{name}-{version}")


def test_list_has_a_row_for_each_release(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("1", "mlp")
    release("2", "mlp", failed=("bert",))
    release("1", "mlp", name="other")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["zoo-1", "zoo-2", "other-1"]
    assert re.search(r"zoo-2 +not passed +\S+ \S+ +1 accepted, 1 failed +c{12} +no", lines[3])
    assert main(["list", "other"]) == 0
    assert "zoo" not in capsys.readouterr().out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_names_and_numbers_stay_in_one_piece_however_narrow_the_terminal(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    publish("mlp")
    release("2026.11.24.2", "mlp")
    for command in ("list", "show"):
        assert main([command, "zoo"]) == 0
    out = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert "zoo-2026.11.24.2  passed " in out
    assert re.search(r"^mlp +accepted +20 +fp32 ", out, re.MULTILINE)


def test_list_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no releases\n"


@pytest.mark.parametrize("title", ["zoo", "zoo-2", "releases/zoo-2/"])
def test_show_has_what_the_page_has(capsys: pytest.CaptureFixture[str], title: str) -> None:
    publish("mlp", b"1" * 1000)
    release("1", "mlp")
    publish("mlp", b"1" * 2000)
    release("2", "mlp", failed=("bert",))
    assert main(["show", title]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Release zoo-2\nnot passed: 1 over budget, 1 failed\n")
    assert "+100.0 %, allowed are 5 %" in out
    # Brackets and markup are only text.
    assert " ".join(CAUSE.split())[:40] in out
    assert out.endswith("releases/zoo-2/changes.html\n")


def test_a_release_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("1", "mlp")
    for command in (["show", "zoo-9"], ["diff", "zoo-1", "zoo-9"]):
        assert main(command) == 2
        assert capsys.readouterr().err == "zoo-9: there is no such release; the last ones are: zoo-1\n"
    for command in ("promote", "checkout"):
        assert main([command, "zoo", "--release", "9"]) == 2
        assert "releases/zoo-9: there is no such release; there are: 1" in capsys.readouterr().err


def test_a_folder_of_somebody_s_own_is_no_release_and_the_ruin_of_one_is(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    directory = release("1", "mlp")
    (RELEASES / "notes").mkdir()
    (RELEASES / "notes/README").write_text("mine")
    assert main(["verify"]) == 0
    directory.manifest.unlink()
    assert main(["verify"]) == 7
    err = capsys.readouterr().err
    assert "releases/zoo-1: no readable manifest.json" in err
    assert "notes" not in err


def test_a_broken_manifest_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("1", "mlp").manifest.write_text("{")
    assert main(["list"]) == 2
    assert "releases/zoo-1/manifest.json: not valid JSON" in capsys.readouterr().err


def test_diff_tells_every_difference(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp", b"1" * 1000)
    publish("vit")
    release("1", "mlp", "vit", failed=("bert",))
    publish("mlp", b"1" * 2000, latency_s=0.05)
    publish("bert")
    release("2", "mlp", "bert")
    assert main(["diff", "zoo-1", "zoo-2"]) == 0
    out = capsys.readouterr().out
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()[2:]]
    assert rows[0][:2] == ["bert", "verdict"]
    assert rows[0][3] == "accepted"
    assert ["mlp", "latency", "10.0 ms", "50.0 ms"] in rows
    assert ["mlp", "size", "0.977 KiB", "1.95 KiB"] in rows
    assert ["vit", "there", "yes", "no"] in rows
    assert any(row[:2] == ["mlp", "bytes"] for row in rows)
    assert main(["diff", "zoo-2", "zoo"]) == 0
    assert capsys.readouterr().out == "zoo-2 and zoo-2: no differences\n"


def test_verify_accepts_whole_releases(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("1", "mlp")
    publish("mlp", b"another one")
    release("2", "mlp")
    assert main(["verify"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "exports/mlp: ok",
        "releases/zoo-1: ok, 1 not on this machine",
        "releases/zoo-2: ok, 1 in exports",
    ]


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "changes.md", "changes.html", "bom.cdx.json"])
@pytest.mark.parametrize("damage", ["change", "remove"])
def test_verify_finds_a_changed_release(capsys: pytest.CaptureFixture[str], name: str, damage: str) -> None:
    publish("mlp")
    path = release("1", "mlp").path / name
    if damage == "remove":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("mlp", "mlq", 1))
    assert main(["verify"]) == 7
    told = capsys.readouterr()
    assert "exports/mlp: ok" in told.out
    assert "releases/zoo-1: " in told.err
    assert name in told.err or name == "SHA256SUMS"


def test_verify_tells_of_damaged_exports_and_releases_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    directory = publish("mlp")
    release("1", "mlp").notes.unlink()
    directory.model.write_bytes(b"other")
    assert main(["verify"]) == 7
    err = capsys.readouterr().err
    assert "exports/mlp: model.onnx" in err
    assert "releases/zoo-1: changes.md: not as in SHA256SUMS" in err


def test_verify_of_named_exports_looks_at_no_release(capsys: pytest.CaptureFixture[str]) -> None:
    publish("mlp")
    release("1", "mlp").notes.unlink()
    assert main(["verify", "exports/mlp"]) == 0
    assert capsys.readouterr().out == "exports/mlp: ok\n"
