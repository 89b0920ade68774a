import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from batch_data import make_run
from terminal import run_on_terminal

from exporter.errors import ConfigError, ExitCode
from exporter.plain_data import to_plain
from pipeline.cli import run
from pipeline.event_log import append_event
from pipeline.run_state import ExportState, RunState, read_run
from pipeline.status import find_run, main

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "tests/support/stub_batch.py"
DOCUMENT = (ROOT / "docs/progress.md").read_text()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_stub(*arguments):
    return subprocess.run([sys.executable, STUB, *arguments], capture_output=True, text=True, check=False, timeout=60)


def read_status(*arguments):
    """The exit code and what is said, as a machine reads it."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.status", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def read_states(status):
    return {export["id"]: export["state"] for export in status["exports"]}


def wait_for(condition):
    """The status as soon as it is as wanted; a process for each look would miss what does not last."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(ConfigError):
            status = to_plain(read_run(find_run(Path("runs"))))
            if status["exports"] and condition(status):
                return status
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin_run(name="20260101-000000-abcd", **details):
    """The events of a batch of two exports of which one runs, by whatever process."""
    path = Path("runs") / name / "events.jsonl"
    path.parent.mkdir(parents=True)
    start = {
        "exports": ["a", "b", "c"],
        "expected_s": {"a": 100.0, "b": None},
        "workers": 1,
        "command": ["+release=r"],
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    append_event(path, "batch_started", **(start | details))
    append_event(path, "export_ended", export="c", outcome="up_to_date")
    append_event(path, "export_started", export="a", num_tries=1)
    append_event(path, "export_step", export="a", step="capture", rss_bytes=1)
    return path


def test_a_batch_that_went_well_ends_with_0(capsys):
    assert run_stub("a", "b").returncode == 0
    assert main([]) == 0
    out = capsys.readouterr().out
    assert re.match(r"runs/\S+: ended after 0:0\d with exit code 0\n2 exports: 2 passed\npassed +a +1\.0 s\n", out)


def test_a_batch_with_a_failure_ends_with_its_code_and_the_cause(capsys):
    assert run_stub("a", "b-fail").returncode == 1
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "2 exports: 1 failed, 1 passed\nfailed      b-fail  capture: unsupported_op: no ONNX function for" in out


@pytest.mark.parametrize("name", ["nothing", "runs/nothing"])
def test_no_such_run_is_2_and_one_line(name, capsys):
    Path("runs").mkdir()
    assert main([name]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{name}: there is no such run; name a directory under runs/\n")


def test_a_directory_without_runs_is_2(capsys):
    Path("runs/rubbish").mkdir(parents=True)
    assert main([]) == 2
    assert capsys.readouterr().err == "runs: there is no run in it\n"


def test_the_newest_run_is_shown_unless_another_one_is_named(capsys):
    begin_run("20260101-000000-aaaa")
    begin_run("20260102-000000-bbbb")
    Path("runs/20260103-000000-cccc").mkdir()
    for arguments, name in (
        ([], "20260102-000000-bbbb"),
        (["runs"], "20260102-000000-bbbb"),
        (["runs/20260101-000000-aaaa"], "20260101-000000-aaaa"),
        (["20260101-000000-aaaa"], "20260101-000000-aaaa"),
    ):
        main(arguments)
        assert capsys.readouterr().out.startswith(f"runs/{name}: "), arguments


def test_a_running_batch_is_shown_as_it_stands_and_left_alone():
    with subprocess.Popen([sys.executable, STUB, "a", "b-fail", "c", "d", "--pause", "1.2"], stdout=subprocess.DEVNULL):
        status = wait_for(lambda status: "capture" in [export["step"] for export in status["exports"][2:]])
        code = main([])
    assert code == 0
    assert read_states(status) == {"a": "passed", "b-fail": "failed", "c": "running", "d": "running"}
    assert status["phase"] == "running"
    assert status["exports"][2]["duration_s"] < 60
    assert status["left_low_s"] is not None
    code, status = read_status()
    assert (code, status["phase"], status["left_low_s"]) == (1, "ended", None)
    assert set(read_states(status).values()) == {"passed", "failed"}


def test_a_killed_batch_is_told_from_a_running_one_with_what_the_next_run_will_do(capsys):
    process = subprocess.Popen(
        [sys.executable, STUB, "a", "b", "c", "d", "e", "--pause", "0.9"], stdout=subprocess.DEVNULL
    )
    wait_for(lambda status: read_states(status)["c"] == "running" and status["exports"][2]["step"])
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    code, status = read_status()
    assert (code, status["phase"], status["exit_code"]) == (137, "killed", None)
    assert list(read_states(status).values()) == ["passed", "passed", "cut_off", "cut_off", "waiting"]
    assert status["exports"][2]["step"] in ("build", "capture", "parity")
    assert main([]) == 137
    out = capsys.readouterr().out
    assert " was killed, or crashed, after 0:0" in out
    assert re.search(r"^cut off +c +at (build|capture|parity)$", out, re.MULTILINE)
    # What the next run will do is what it then does.
    assert "next run: 2 published and kept, 3 to export; the same command does it: python -m pipeline a b c d e" in out
    again = subprocess.run(
        [sys.executable, "-c", "import stub_batch; stub_batch.main()", "a", "b", "c", "d", "e"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(STUB.parent), *sys.path])},
    )
    assert again.stdout.count("] passed ") == 3
    assert again.stdout.count("] up to date ") == 2


def test_nothing_is_written():
    path = begin_run()
    before = {each: each.stat().st_mtime_ns for each in [*Path().rglob("*"), Path()]}
    text = path.read_bytes()
    assert main([]) == 0
    assert {each: each.stat().st_mtime_ns for each in [*Path().rglob("*"), Path()]} == before
    assert path.read_bytes() == text


def test_a_process_that_got_the_number_of_a_dead_batch_is_not_taken_for_it():
    path = begin_run()
    assert read_status()[1]["phase"] == "running"
    path.write_text(path.read_text().replace(f"{datetime.now(UTC):%Y-%m}", "2020-01"))
    code, status = read_status()
    assert (code, status["phase"]) == (137, "killed")


def test_of_a_batch_on_another_machine_nobody_says_that_it_is_dead(capsys):
    begin_run(host="elsewhere.example.org")
    assert main([]) == 0
    assert "began on another machine" in capsys.readouterr().out


def test_events_of_an_older_version_are_enough():
    path = Path("runs/20260101-000000-abcd/events.jsonl")
    path.parent.mkdir(parents=True)
    append_event(path, "batch_started", exports=["a", "b"])
    append_event(path, "export_started", export="a")
    append_event(path, "export_ended", export="a", outcome="passed", kind=None)
    code, status = read_status()
    assert (code, status["phase"], read_states(status)) == (137, "killed", {"a": "passed", "b": "waiting"})


def test_broken_events_do_not_hide_the_others():
    path = begin_run()
    with path.open("a") as file:
        file.write('{"event": "export_ended", "export": "b", "outcome": "passed", "time": "yesterday"}\n')
        file.write('{"event": "export_ended", "export": "zzz", "outcome": "passed", "time": "2026-01-01T00:00:00"}\n')
        file.write('{"event": "export_started"}\n{"event": "batch_ended", "time": 3}\n{"event": "batch_st')
    code, status = read_status()
    assert (code, status["phase"]) == (0, "running")
    assert read_states(status) == {"a": "running", "b": "waiting", "c": "up_to_date"}
    assert status["exports"][0]["step"] == "capture"


@pytest.mark.parametrize("what", ["events.jsonl", "summary.json"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "binary"])
def test_one_of_events_and_summary_is_enough(what, damage):
    assert run_stub("a", "b-fail").returncode == 1
    (path,) = Path("runs").glob(f"*/{what}")
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else os.urandom(1000))
    code, status = read_status()
    assert (code, status["phase"], status["exit_code"]) == (1, "ended", 1)
    assert read_states(status) == {"a": "passed", "b-fail": "failed"}
    assert "no ONNX function" in status["exports"][1]["cause"]


def test_a_result_that_came_before_its_event_counts():
    assert run_stub("a", "b-fail").returncode == 1
    (events,) = Path("runs").glob("*/events.jsonl")
    (summary,) = Path("runs").glob("*/summary.json")
    kept = [line for line in events.read_text().splitlines() if "_ended" not in line]
    events.write_text("\n".join(kept) + "\n")
    summary.unlink()
    code, status = read_status()
    assert (code, status["phase"]) == (137, "killed")
    assert read_states(status) == {"a": "passed", "b-fail": "failed"}
    assert status["exports"][1]["kind"] == "unsupported_op"


def test_a_batch_that_mlflow_does_not_have_says_how_to_catch_up(folder, capsys):
    name = make_run(folder).path.name
    assert main([]) == 1
    assert f"MLflow is behind; catch up with: python -m registry_sync sync runs/{name}" in capsys.readouterr().out


def test_a_batch_whose_tracking_was_behind_has_the_code_that_it_ended_with():
    path = begin_run()
    append_event(path, "batch_ended", exit_code=0)
    assert read_status()[1]["phase"] == "tracking"
    append_event(path, "tracking_ended", is_behind=True, exit_code=6)
    code, status = read_status()
    assert (code, status["phase"], status["exit_code"]) == (6, "ended", 6)


@pytest.mark.parametrize("arguments", [["--follow"], ["--follow", "--json"]])
def test_following_ends_with_the_batch(arguments):
    with subprocess.Popen([sys.executable, STUB, "a", "b-fail", "--pause", "0.9"], stdout=subprocess.DEVNULL):
        wait_for(lambda status: status["phase"] == "running")
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.status", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    if "--json" in arguments:
        assert json.loads(done.stdout)["phase"] == "ended"
    else:
        assert "1 failed, 1 passed" in done.stdout


def test_following_on_a_terminal_draws_over_itself():
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, STUB, "a", "b", "--pause", "1.2"], stdout=subprocess.DEVNULL):
        wait_for(lambda status: status["phase"] == "running")
        done = run_on_terminal(
            [sys.executable, "-m", "pipeline.status", "--follow"], columns=100, cwd=Path.cwd(), env=environment
        )
    assert done.status == 0
    assert any("2 running" in line for frame in done.frames for line in frame)
    assert sum("exports: " in line for line in done.screen) == 1
    assert any("2 passed" in line for line in done.screen)


def test_many_exports_are_not_listed_one_by_one(capsys):
    names = [f"e{number}" for number in range(1000)]
    begin_run(exports=["a", "b", "c", *names], expected_s=dict.fromkeys(["a", "b", *names], 10.0))
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "1003 exports: 1 running, 1001 waiting, 1 up to date; 2 to 3.5 h left" in out
    assert "and 971 more" in out
    assert len(out.splitlines()) < 10


def test_status_as_a_key_shows_the_last_run_and_exports_nothing(capsys):
    begin_run()
    assert run(["modelpress", "status=true"]) is ExitCode.OK
    assert "3 exports: 1 running" in capsys.readouterr().out
    assert not Path("exports").exists()


def test_status_as_a_key_beside_models_is_about_their_run(capsys):
    begin_run("20260101-000000-aaaa", exports=["mlp", "gru"])
    begin_run("20260102-000000-bbbb", exports=["bert"])
    assert run(["modelpress", "-m", "+model=mlp,gru", "status=true"]) is ExitCode.OK
    assert capsys.readouterr().out.startswith("runs/20260101-000000-aaaa: ")
    assert run(["modelpress", "+model=vit", "status=true"]) is ExitCode.CONFIG
    assert capsys.readouterr().err == "modelpress: runs: there is no run of vit in it\n"


def test_a_run_of_other_exports_is_not_found():
    begin_run(exports=["a"])
    with pytest.raises(ConfigError, match="there is no run of a, b in it"):
        find_run(Path("runs"), ["b", "a"])


def read_rows(head):
    """A table of the document: first column to last."""
    after = DOCUMENT.partition(f"| {head} |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in after.splitlines()[2:]]
    return {name: row[-1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_the_document_has_every_event_with_all_its_keys():
    assert run_stub("a", "b-fail", "c-lost", "--pause", "0.6").returncode == 1
    (path,) = Path("runs").glob("*/events.jsonl")
    append_event(path, "tracking_ended", is_behind=False, exit_code=1)
    append_event(path, "notice", text="slow")
    documented = {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in read_rows("event | when").items()}
    written = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        assert datetime.fromisoformat(event.pop("time")).utcoffset().total_seconds() == 0
        name = event.pop("event")
        assert written.setdefault(name, set(event)) == set(event)
    assert written == documented
    assert set().union(*documented.values()) == set(read_rows("key"))


def test_the_document_has_every_key_of_the_status():
    tables = DOCUMENT.partition("`--json` gives one object")[2]
    keys, export_keys = tables.split("| key of an export")

    def name_keys(text):
        return {
            name for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
        }

    assert name_keys(keys) == {field.name for field in dataclasses.fields(RunState)}
    assert name_keys(export_keys) == {field.name for field in dataclasses.fields(ExportState)}


@pytest.mark.slow
def test_the_memory_of_a_real_worker_is_found(folder):
    shutil.copy(ROOT / "tests/support/worker_models.py", folder)
    (folder / "conf/model").mkdir(parents=True)
    (folder / "conf/model/hangs.yaml").write_text(
        "name: hangs\nsource: {_target_: worker_models.IgnoresSigtermAndHangs, seconds: '989'}\n"
        "inputs: {x: {shape: [2, 3]}}\n"
    )
    arguments = ["--config-dir", "conf", "+model=hangs", "tracking=off"]
    process = subprocess.Popen([sys.executable, "-m", "pipeline", *arguments], stdout=subprocess.DEVNULL)
    try:
        status = wait_for(lambda status: status["exports"][0]["step"] and status["exports"][0]["rss_bytes"])
        assert status["exports"][0]["rss_bytes"] > 100 << 20
        assert status["exports"][0]["step"] == "build"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    code, status = read_status()
    assert (code, read_states(status)) == (143, {"hangs": "cancelled"})
