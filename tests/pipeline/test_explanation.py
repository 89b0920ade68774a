import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import REPOSITORY, make_environment

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, StorageError
from exporter.files import write_json
from exporter.lock import lock_output
from exporter.result import Step, StepRecord
from exporter.spec import ExportOptions, ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.cli import run
from pipeline.config import Config
from pipeline.explanation import explain_jobs
from pipeline.fingerprint import take_fingerprint
from pipeline.plan import Job

_LOADED = """
import sys
from pipeline.cli import run
code = run(["pipeline", *sys.argv[1:]])
print("LOADED", sorted({"torch", "onnx", "onnxruntime", "transformers", "mlflow", "dvc"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_spec(export_id: str, opset: int = 20) -> ExportSpec:
    return ExportSpec(
        id=export_id,
        model=ModelSpec(name="net", source={"_target_": "worker_models.Doubles"}, inputs={"x": Input(shape=[2])}),
        precision=Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5),
        export=ExportOptions(opset_version=opset),
    )


def publish_export(spec: ExportSpec, duration_s: float = 0.0) -> ExportDirectory:
    directory = ExportDirectory(Path("exports") / spec.id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(b"a graph")
    write_json(directory.spec, spec)
    write_json(directory.fingerprint, take_fingerprint(spec))
    steps = [StepRecord(step=Step.capture, duration_s=1.0, peak_rss_bytes=300 << 20, start_rss_bytes=100 << 20)]
    result = describe_result(spec, None, time.time() - duration_s, files=directory.record_files(), steps=steps)
    write_result(directory, result)
    return directory


def explain(*specs: ExportSpec) -> ExitCode:
    config = Config(model=specs[0].model, precision=specs[0].precision, explain=True)
    return explain_jobs(Job(spec, config) for spec in specs)


def snapshot(root: Path) -> dict[str, object]:
    """Every file and folder, with all times that a write would change."""
    states = {}
    for path in [root, *root.rglob("*")]:
        found = path.lstat()
        states[str(path)] = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
    return states


def test_each_export_is_a_line_that_says_what_and_why_and_what_is_expected(folder, capfd):
    publish_export(make_spec("same"))
    publish_export(make_spec("changed"), duration_s=12.0)
    before = snapshot(folder)
    assert explain(make_spec("same"), make_spec("changed", opset=21), make_spec("fresh")) is ExitCode.OK
    assert capfd.readouterr().out.splitlines() == [
        "up to date  same",
        "to export   changed: opset_version 20 -> 21 (expected: 12.0 s, 428 MiB)",
        "to export   fresh: new",
        "2 of 3 to export, 1 up to date; expected: 12.0 s of work, and 1 never exported before",
    ]
    assert snapshot(folder) == before


def test_a_terminal_gets_a_table(folder, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    publish_export(make_spec("changed"), duration_s=12.0)
    spec = make_spec("changed")
    spec.export.optimize = ["cse"]
    explain(spec, make_spec("fresh"))
    out = capfd.readouterr().out
    assert "\x1b[" in out
    lines = [line.split() for line in out.splitlines()]
    # Brackets are no markup.
    assert lines[1][-6:] == ["optimize", "default", "->", '["cse"]', "12.0", "428"]
    assert "expected MiB" in out


def test_without_anything_due_nothing_is_expected(folder, capfd):
    publish_export(make_spec("same"), duration_s=12.0)
    assert explain(make_spec("same")) is ExitCode.OK
    assert capfd.readouterr().out.splitlines()[-1] == "0 of 1 to export, 1 up to date"


def test_what_would_be_refused_is_refused(folder):
    Path("exports").mkdir()
    Path("exports/net").touch()
    with pytest.raises(StorageError, match="exports/net: is a file"):
        explain(make_spec("net"))


def test_a_mistake_has_the_code_of_a_mistake(folder, capfd):
    assert run(["modelpress", "-m", "+model=mlp", "explain=true", "id=a,a"]) is ExitCode.CONFIG
    assert "two exports are named 'a'" in capfd.readouterr().err
    assert run(["modelpress", "-m", "+model=mlp", "explain=true,false"]) is ExitCode.CONFIG
    assert "explain: differs between the jobs" in capfd.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_release_is_explained_beside_a_batch_without_loading_or_writing_anything(folder):
    with lock_output(Path("exports")):
        before = snapshot(folder)
        done = subprocess.run(
            [sys.executable, "-c", _LOADED, "+release=zoo", "explain=true", "force=true"],
            env=make_environment({"PYTHONPATH": str(REPOSITORY)}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert snapshot(folder) == before
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["17 of 17 to export, 0 up to date", "LOADED []"]
    assert "to export   mlp: new" in lines
    assert done.stderr == ""


def can_mount() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
def test_a_read_only_disk_is_explained(folder):
    publish_export(make_spec("net"))
    script = 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && ! touch x 2>/dev/null && exec "$@"'
    command = [sys.executable, "-m", "pipeline", "+model=mlp", "explain=true"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command],
        env=make_environment({"PYTHONPATH": str(REPOSITORY)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "to export   mlp: new\n1 of 1 to export, 0 up to date\n",
        "",
    )


def test_a_reader_that_goes_away_changes_nothing(folder):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipeline", "+model=mlp", "explain=true"]
    environment = make_environment({"PYTHONPATH": str(REPOSITORY)})
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_words_that_the_terminal_has_no_letters_for_are_told_all_the_same(capfd, monkeypatch, is_terminal):
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    directory = publish_export(make_spec("changed"))
    write_json(directory.fingerprint, take_fingerprint(make_spec("changed")) | {"data.gr\xf6\xdfe.npy": "0"})
    with os.fdopen(1, "w", encoding="ascii", closefd=False) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert explain(make_spec("changed")) is ExitCode.OK
    assert "data changed: gr\\xf6\\xdfe.npy" in capfd.readouterr().out
