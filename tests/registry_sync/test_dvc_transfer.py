"""Push and pull between real repositories and a remote, with bytes damaged on the way."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from batch_data import make_run
from dvc_folder import dvc, git, make_repository

from exporter.lock import lock_output
from registry_sync.__main__ import main
from registry_sync.dvc_commit import commit_exports

# pygtrie's, of which DVC makes its graph.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")

MODEL = Path("exports/good/model.onnx")


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one export, committed to DVC and git, and a remote; the working directory."""
    folder = tmp_path / "origin"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    record = make_run(folder).read_summary()
    make_repository()
    dvc("remote", "add", "-q", "-d", "shelf", str(tmp_path / "remote"))
    list(commit_exports(record))
    git("add", ".dvc", "exports")
    git("commit", "-qm", "export")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another person's clone, after a push; the working directory."""
    assert main(["push"]) == 0
    git("clone", "-q", str(origin), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def find_object(store: Path, name: str = "model.onnx") -> Path:
    """The file of the export in a cache or a remote."""
    listed = yaml.safe_load(Path("exports/good.dvc").read_text())["outs"][0]["md5"]
    files = store / "files/md5"
    entries = json.loads((files / listed[:2] / listed[2:]).read_text())
    if not name:
        return files / listed[:2] / listed[2:]
    md5 = next(entry["md5"] for entry in entries if entry["relpath"] == name)
    return files / md5[:2] / md5[2:]


def damage(path: Path) -> None:
    """Change a byte behind DVC's back: it trusts files that nobody may write."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_what_is_pushed_is_pulled_as_recorded(clone: Path, origin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["pull"]) == 0
    told = capsys.readouterr().out
    # All that are in the export's directory, and DVC's list of them.
    num_files = len(list((origin / MODEL).parent.iterdir())) + 1
    assert f"fetched {num_files} files; 1 export as recorded" in told
    assert MODEL.read_bytes() == (origin / MODEL).read_bytes()
    assert main(["verify"]) == 0
    assert "up to date" in dvc("status")
    assert main(["pull", "exports/good"]) == 0


def test_plain_dvc_hands_out_a_damaged_object_which_is_why_we_look(clone: Path) -> None:
    dvc("fetch")
    damage(find_object(clone / ".dvc/cache"))
    dvc("checkout")
    assert "up to date" in dvc("status")
    assert main(["verify"]) == 7


@pytest.mark.parametrize("name", ["model.onnx", "result.json", "fingerprint.json", ""])
def test_a_damaged_object_is_not_pushed(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place = find_object(origin / ".dvc/cache", name)
    whole = place.read_bytes()
    damage(place)
    assert main(["push"]) == 7
    told = capsys.readouterr().err
    assert f"{'exports/good/' + name if name else 'exports/good'}: " in told
    assert "nothing was pushed" in told
    assert not list((tmp_path / "remote").rglob("*.dir"))
    # What it says to do does it.
    (command,) = [line for line in told.splitlines() if line.startswith("rm -f ")]
    assert "commit -f exports/good.dvc" in command
    subprocess.run(["sh", "-c", command], check=True)
    assert place.read_bytes() == whole
    assert main(["push"]) == 0


def test_the_line_names_file_and_hashes(origin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads(Path("exports/good/result.json").read_text())["files"][0]["sha256"]
    place = find_object(origin / ".dvc/cache")
    damage(place)
    found = hashlib.sha256(place.read_bytes()).hexdigest()
    assert main(["push"]) == 7
    line = capsys.readouterr().err.splitlines()[0]
    assert line == (
        f"exports/good/model.onnx: sha256 is {found[:12]} in DVC's cache, {recorded[:12]} is recorded "
        f"({place.relative_to(origin)})"
    )


def test_where_the_export_is_damaged_too_the_remote_has_it(
    origin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["push"]) == 0
    damage(find_object(origin / ".dvc/cache"))
    damage(MODEL)
    assert main(["push"]) == 7
    line = capsys.readouterr().err.splitlines()[-1]
    command = line.partition(" && python")[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert line.partition(" && ")[2].endswith("python -m registry_sync pull exports/good   (or export it again)")
    assert main(["pull", "exports/good"]) == 0
    assert main(["verify"]) == 0


@pytest.mark.parametrize("where", ["cache", "remote"])
def test_a_damaged_object_is_not_checked_out(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    if where == "cache":
        dvc("fetch")
        damage(find_object(clone / ".dvc/cache"))
    else:
        damage(find_object(tmp_path / "remote"))
    assert main(["pull"]) == 7
    told = capsys.readouterr()
    assert told.err.startswith("exports/good/model.onnx: sha256 is ")
    assert "0 exports as recorded" in told.out
    assert not MODEL.exists()
    if where == "cache":
        command = told.err.splitlines()[1]
        subprocess.run(["sh", "-c", command.partition(" && ")[0]], check=True)
        assert main(["pull"]) == 0
        assert main(["verify"]) == 0


def test_what_dvc_takes_for_unchanged_is_looked_at_all_the_same(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull"]) == 0
    stat = MODEL.stat()
    damage(MODEL)
    MODEL.chmod(stat.st_mode)
    os.utime(MODEL, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    capsys.readouterr()
    assert main(["pull"]) == 7
    told = capsys.readouterr().err
    assert "exports/good: not as recorded: model.onnx" in told
    shutil.rmtree("exports/good")
    assert main(["pull", "exports/good"]) == 0


def test_a_change_that_dvc_does_not_have_is_not_overwritten(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull"]) == 0
    MODEL.chmod(0o644)
    MODEL.write_bytes(b"work of mine")
    assert main(["pull"]) == 6
    assert "exports/good: not checked out: " in capsys.readouterr().err
    assert MODEL.read_bytes() == b"work of mine"


def test_what_the_remote_lacks_is_behind_and_the_rest_comes(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("exports/good", "exports/other")
    content = b"other"
    Path("exports/other/model.onnx").write_bytes(content)
    result = json.loads(Path("exports/other/result.json").read_text())
    result["files"][0] |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    Path("exports/other/result.json").write_text(json.dumps(result))
    dvc("add", "-q", "exports/other")
    git("add", "exports")
    git("commit", "-qm", "other")
    assert main(["push", "exports/good"]) == 0
    git("clone", "-q", str(origin), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    capsys.readouterr()
    assert main(["pull"]) == 6
    told = capsys.readouterr()
    assert "exports/other: not on the remote; push it from where it was exported" in told.err
    assert "1 export as recorded" in told.out
    assert MODEL.exists()


def test_an_export_that_dvc_has_an_older_version_of_is_told(origin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = Path("exports/good/result.json")
    result.write_text(result.read_text() + "\n")
    assert main(["push"]) == 6
    told = capsys.readouterr().err
    assert "exports/good\n" in told
    assert "python -m registry_sync sync, then push again" in told


def test_what_a_batch_is_at_work_on_is_not_checked_out(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_output(clone / "exports"):
        assert main(["pull"]) == 4
    assert "in use by another run (process" in capsys.readouterr().err
    assert not MODEL.exists()
    assert main(["pull"]) == 0


def test_what_a_newer_version_has_written_is_pulled_and_nobody_is_told_to_remove_it(
    origin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = MODEL.with_name("result.json")
    path.write_text(path.read_text().replace('"schema_version": ', '"schema_version": 9'))
    dvc("commit", "-q", "-f")
    assert main(["push"]) == 0
    shutil.rmtree("exports/good")
    shutil.rmtree(".dvc/cache")
    assert main(["pull"]) == 0
    assert "1 export as recorded" in capsys.readouterr().out
    damage(find_object(Path(".dvc/cache"), "fingerprint.json"))
    assert main(["push"]) == 7
    told = capsys.readouterr().err
    assert "rm -r" not in told
    assert "(if exports/good is as it should be)" in told


@pytest.mark.parametrize("command", ["push", "pull"])
def test_what_is_missing_is_told_in_a_line(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--remote", "nowhere"]) == 6
    assert "remote 'nowhere' doesn't exist" in capsys.readouterr().err
    assert main([command, "exports/bad"]) == 2
    assert "exports/bad: DVC has no version of it" in capsys.readouterr().err
    dvc("remote", "remove", "shelf")
    assert main([command]) == 6
    assert "there is no DVC remote: " in capsys.readouterr().err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main([command]) == 6
    told = capsys.readouterr().err
    assert told == f"not a DVC repository: {elsewhere}; git init and dvc init, or go to where .dvc/ is\n"


def test_pulled_exports_are_no_links_whatever_the_cache_makes(clone: Path) -> None:
    dvc("config", "--local", "cache.type", "hardlink,symlink")
    assert main(["pull"]) == 0
    assert MODEL.stat().st_nlink == 1
    assert not MODEL.is_symlink()


@pytest.mark.parametrize("name", ["result.json", "data.csv", ""])
def test_folders_that_are_no_exports_are_dvcs_alone(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path("study").mkdir()
    if name:
        Path("study", name).write_text('{"accuracy": 0.9, "files": []}')
    dvc("add", "-q", "study")
    git("add", "study.dvc")
    git("commit", "-qm", "study")
    assert main(["push"]) == 0
    assert "1 export as recorded" in capsys.readouterr().out
    git("clone", "-q", str(origin), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    assert main(["pull"]) == 0
    told = capsys.readouterr()
    assert "1 export as recorded" in told.out
    assert "rm " not in told.out + told.err
    assert [path.name for path in Path("study").iterdir()] == ([name] if name else [])


def test_nobody_is_told_to_remove_a_folder_that_is_no_export(origin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study").mkdir()
    Path("study/result.json").write_text("{}")
    dvc("add", "-q", "study")
    listed = yaml.safe_load(Path("study.dvc").read_text())["outs"][0]["md5"]
    damage(origin / ".dvc/cache/files/md5" / listed[:2] / listed[2:])
    assert main(["push"]) == 7
    told = capsys.readouterr().err
    assert "study: md5 is " in told
    assert "rm -r" not in told
    (command,) = [line.partition("   (")[0] for line in told.splitlines() if line.startswith("rm -f ")]
    subprocess.run(["sh", "-c", command], check=True)
    assert main(["push"]) == 0
