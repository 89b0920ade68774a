"""What a scheduler is given: units, workflow, crontab and page hold together, and say the one command."""

import ast
import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from exporter.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "python -m pipeline +release=zoo"
HOME = "/srv/modelpress"
SERVICE = ROOT / "deploy/modelpress-release.service"
TIMER = ROOT / "deploy/modelpress-release.timer"
CRONTAB = ROOT / "deploy/crontab"
WORKFLOW = ROOT / ".github/workflows/release.yml"
PAGE = (ROOT / "docs/scheduling.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RETRIED = {ExitCode.LOCKED, ExitCode.STORAGE, ExitCode.SYNC_BEHIND}
FINAL = {ExitCode.EXPORT_FAILED, ExitCode.CONFIG, ExitCode.BUG, ExitCode.INTEGRITY}
# As a shell and as Python say it.
KILLED = {ExitCode.KILLED, -signal.SIGKILL}
STOPPED = {ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED}


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(path)
    return unit


def read_cron_line() -> tuple[str, str]:
    """When, and what sh runs."""
    lines = [line for line in CRONTAB.read_text().splitlines() if re.match(r"[\d*]", line)]
    assert len(lines) == 1
    *fields, command = lines[0].split(maxsplit=5)
    return " ".join(fields), command


def read_job() -> tuple[dict, dict]:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    return workflow, workflow["jobs"]["release"]


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)


def test_all_of_them_run_the_one_command():
    start = read_unit(SERVICE)["Service"]["ExecStart"]
    assert start == f"{HOME}/.venv/bin/{COMMAND}"
    assert read_cron_line()[1].endswith(f" .venv/bin/{COMMAND}")
    steps = [step.get("run", "") for step in read_job()[1]["steps"]]
    assert [run for run in steps if "pipeline" in run] == [COMMAND]
    assert len(SNIPPETS) == 3
    for snippet in SNIPPETS:
        constants = [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
        assert f"cd {HOME} && .venv/bin/{COMMAND}" in constants, snippet


@pytest.mark.parametrize("number", range(3))
def test_a_snippet_of_the_page_compiles(number: int):
    compile(SNIPPETS[number], "docs/scheduling.md", "exec")


def test_every_scheduler_retries_the_same_codes():
    service = read_unit(SERVICE)["Service"]
    assert service["Restart"] == "on-failure"
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == FINAL
    assert {int(code) for code in service["SuccessExitStatus"].split()} == STOPPED
    for snippet in SNIPPETS:
        found = re.search(r"^MAY_PASS = (.*)$", snippet, re.MULTILINE)
        assert found is not None, snippet
        assert ast.literal_eval(found[1]) == {int(code) for code in RETRIED} | KILLED
    rows = dict(re.findall(r"^\| (\d[\d, ]*) \| [^|]* \| (yes|no)\b", PAGE, re.MULTILINE))
    told = {int(code): answer for codes, answer in rows.items() for code in codes.split(",")}
    assert set(told) == {int(code) for code in ExitCode}
    assert {code for code in FINAL if told[code] != "no"} == set()
    assert {code for code in RETRIED | {ExitCode.KILLED} if told[code] != "yes"} == set()


def test_the_service_outlives_the_batchs_own_stop():
    service = read_unit(SERVICE)["Service"]
    assert service["Type"] == "oneshot"
    assert service["OOMPolicy"] == "continue"
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > 15
    assert "MemoryDenyWriteExecute" not in service
    # Where a bug's traceback is written, and named; a private /tmp goes with the service.
    assert service["Environment"].split()[1] == f"TMPDIR=/var/cache/{service['CacheDirectory']}"


def test_the_timer_starts_the_service_and_makes_up_for_a_lost_night():
    timer = read_unit(TIMER)["Timer"]
    assert TIMER.stem == SERVICE.stem
    assert timer["Persistent"] == "true"
    assert timer["RandomizedDelaySec"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path):
    assert verify(tmp_path).stderr == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_a_setting_that_systemd_does_not_know_is_seen(tmp_path: Path):
    assert "Unknown key" in verify(tmp_path, ("KillMode=", "KillModes=")).stderr


def verify(folder: Path, *changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """The units as installed into a folder of ours, where there is a Python to start."""
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for unit in (SERVICE, TIMER):
        text = unit.read_text().replace(HOME, str(folder))
        for old, new in changes:
            text = text.replace(old, new)
        (folder / unit.name).write_text(text)
    units = [str(folder / unit.name) for unit in (SERVICE, TIMER)]
    return subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)


def test_the_workflow_is_sound():
    pytest.importorskip("check_jsonschema")
    done = run_module("check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW))
    assert done.returncode == 0, done.stdout


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    # A program without a module, beside the interpreter.
    program = shutil.which("zizmor", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("zizmor is not installed")
    command = [program, "--offline", "--no-progress", "--no-config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflow_gives_nothing_away():
    done = lint(WORKFLOW)
    assert done.returncode == 0, done.stdout


def test_an_action_that_is_not_pinned_is_seen(tmp_path: Path):
    path = tmp_path / ".github/workflows/release.yml"
    path.parent.mkdir(parents=True)
    path.write_text(re.sub(r"checkout@\w+ # v4", "checkout@v4", WORKFLOW.read_text()))
    done = lint(path)
    assert "unpinned-uses" in done.stdout
    assert done.returncode != 0


def test_the_workflow_is_scheduled_bounded_and_reads_only():
    workflow, job = read_job()
    # YAML 1.1 reads the key `on` as true.
    triggers = workflow[True]
    assert "workflow_dispatch" in triggers
    minute = triggers["schedule"][0]["cron"].split()[0]
    assert minute not in {"0", "*"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"] == {"group": "release", "cancel-in-progress": False}
    assert job["timeout-minutes"] > 0
    checkout = next(step for step in job["steps"] if "checkout@" in step.get("uses", ""))
    assert checkout["with"]["persist-credentials"] is False
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = next(name for name in project["dependencies"] if name.startswith("torch>"))
    assert f'download.pytorch.org/whl/cpu "{torch}"' in WORKFLOW.read_text()


@pytest.mark.parametrize(("new", "shown"), [([], ""), (["zoo-3"], "zoo-3\n")])
def test_the_workflow_shows_the_page_that_this_run_has_made(tmp_path: Path, new: list[str], shown: str):
    step = next(step["run"] for step in read_job()[1]["steps"] if step.get("name") == "Show what changed")
    (tmp_path / "begun").touch()
    for name in ["zoo-1", "zoo-2", *new]:
        page = tmp_path / "releases" / name / "changes.md"
        page.parent.mkdir(parents=True)
        page.write_text(f"{name}\n")
        at_s = time.time() + (60 if name in new else -60)
        os.utime(page, (at_s, at_s))
    environment = {"PATH": os.environ["PATH"], "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": "summary"}
    # As GitHub runs it.
    done = subprocess.run(["bash", "-e", "-c", step], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    summary = tmp_path / "summary"
    assert (summary.read_text() if summary.exists() else "") == shown


@pytest.fixture
def cron(tmp_path: Path) -> list[str]:
    """The crontab's command, in a project whose python notes its arguments and ends with the code that it reads."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PWD $*" >> started\necho ready\nread code\nexit "$code"\n')
    python.chmod(0o755)
    when, command = read_cron_line()
    assert re.fullmatch(r"[1-5]?\d \d+ \* \* \*", when)
    assert not when.startswith("0 ")
    # cron would make a new line of it.
    assert "%" not in command
    return ["sh", "-c", command.replace(HOME, str(tmp_path))]


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_a_second_run_of_the_crontab_line_does_not_start(cron: list[str], tmp_path: Path):
    with subprocess.Popen(cron, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        second = subprocess.run(cron, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        first.communicate("6\n", timeout=60)
    assert second.returncode == ExitCode.LOCKED
    assert second.stdout == ""
    assert first.returncode == ExitCode.SYNC_BEHIND
    assert (tmp_path / "started").read_text() == f"{tmp_path} -m pipeline +release=zoo\n"


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_the_crontab_line_runs_again_once_the_first_has_ended(cron: list[str], tmp_path: Path):
    for code in (1, 0):
        done = subprocess.run(cron, input=f"{code}\n", stdout=subprocess.PIPE, text=True, check=False, timeout=60)
        assert done.returncode == code
    assert len((tmp_path / "started").read_text().splitlines()) == 2
