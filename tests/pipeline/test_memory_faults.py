"""Workers that the kernel kills for their memory, in a real control group: told with evidence, and tried again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from invariants import check_invariants, list_shared_memory, run_in
from memory_group import memory_group
from project import make_environment

from exporter.errors import ExitCode, FailureKind
from exporter.result import Step
from registry_sync.record import Outcome

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[1] / "support"
LIMIT_BYTES = 1400 << 20
MODEL = """
name: {name}
source: {{_target_: hostile_models.HoldsMemory, num_bytes: {num_bytes}, own: {own}, other: {other}}}
inputs: {{x: {{shape: [2, 3]}}}}
"""


def test_a_kill_for_memory_is_told_with_evidence_and_tried_once_more_alone(tmp_path, capfd):
    shutil.copy(SUPPORT / "hostile_models.py", tmp_path)
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    # Each of the small ones fits, and not both; the third fits nowhere.
    for name, size, other in (
        ("huge", 2 << 30, "small1"),
        ("small1", 700 << 20, "small2"),
        ("small2", 700 << 20, "small1"),
    ):
        paths = {"own": tmp_path / name, "other": tmp_path / other}
        (folder / f"{name}.yaml").write_text(MODEL.format(name=name, num_bytes=size, **paths))
    arguments = [
        "-m",
        "+model=huge,small1,small2",
        "executor.workers=2",
        "executor.memory_budget=64GiB",
        "tracking=off",
    ]
    command = [sys.executable, "-m", "pipeline", "--config-dir", "conf", *arguments]
    shared = list_shared_memory()
    with memory_group(LIMIT_BYTES) as group:

        def start() -> ExitCode:
            done = subprocess.run(
                [*group, *command],
                cwd=tmp_path,
                env=make_environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
                stdin=subprocess.DEVNULL,
                timeout=300,
                check=False,
            )
            return ExitCode(done.returncode)

        ran = run_in(tmp_path, start)
    check_invariants(ran, ["huge", "small1", "small2"], {}, shared)

    assert {export.id: export.outcome for export in ran.record.exports} == {
        "huge": Outcome.failed,
        "small1": Outcome.passed,
        "small2": Outcome.passed,
    }
    huge = ran.export("huge")
    assert (huge.failure.kind, huge.failure.step) == (FailureKind.out_of_memory, Step.build)
    assert "the worker was killed for its memory: oom_kill in " in huge.failure.cause
    assert " rose by " in huge.failure.cause
    tries = {export.id: export.num_tries for export in ran.record.exports}
    assert tries["huge"] == 2
    # Which of the two the kernel chooses is its own affair, and now and then it takes both.
    assert 2 in {tries["small1"], tries["small2"]} <= {1, 2}

    retried = {name for name, number in tries.items() if number == 2}
    events = [json.loads(line) for line in ran.run.events.read_text().splitlines()]
    assert {event["export"] for event in events if event["event"] == "export_retried"} == retried
    out = capfd.readouterr().out
    assert all(f"again      {name} once more, alone, after build: out_of_memory: " in out for name in retried)
    assert (ran.directory("huge") / "worker-1.log").exists()
    assert (ran.directory("huge") / "worker.log").exists()
