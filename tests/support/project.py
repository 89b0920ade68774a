"""Runs the real command in a folder of its own, as a user would."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_COPIED = (
    "conf",
    "exporter",
    "pipeline",
    "registry_sync",
    "hydra_plugins",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
)
_COPIED_FILES = ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml")


_SLOW_MODEL = """
import subprocess
import time
import torch
from torch import nn

class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        subprocess.Popen(["sleep", "{seconds}"], start_new_session=True)
        time.sleep(60)
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features
"""
_SLOW_CONFIG = """
name: slow
source: {_target_: slow_models.Slow}
inputs:
  features: {shape: [2, 4]}
"""


@dataclass
class Project:
    """A working directory and the commands in it."""

    path: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python -m pipeline` with the given arguments."""
        return self.python("-m", "pipeline", *arguments, **environment)

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, *arguments, **environment)

    def call(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=make_environment(environment),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python -m pipeline` in the background, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.path,
            env=make_environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def add_slow_model(self, sleeper: str = "0") -> None:
        """`--config-dir conf +model=slow`, which takes a minute to build.

        Args:
            sleeper: Seconds for which a child of the worker's sleeps on, in a session of its own: nobody but who looks
                for it finds it.
        """
        (self.path / "slow_models.py").write_text(_SLOW_MODEL.format(seconds=sleeper))
        (self.path / "conf/model").mkdir(parents=True)
        (self.path / "conf/model/slow.yaml").write_text(_SLOW_CONFIG)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "dvc", *arguments)

    def git(self, *arguments: str) -> None:
        done = self.call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)
        assert done.returncode == 0, done.stderr

    def read_json(self, name: str) -> dict[str, object]:
        return json.loads((self.path / name).read_text())

    def runs(self) -> list[Path]:
        return sorted(path for path in (self.path / "runs").glob("*") if path.is_dir())

    def last_summary(self) -> dict[str, object]:
        newest = max(self.runs(), key=lambda path: path.stat().st_mtime_ns)
        return json.loads((newest / "summary.json").read_text())

    def outcomes(self) -> dict[str, str]:
        """Export to outcome, of the last run."""
        return {export["id"]: export["outcome"] for export in self.last_summary()["exports"]}

    def published(self) -> set[str]:
        return {path.name for path in (self.path / "exports").glob("*")}


def make_environment(changes: dict[str, str]) -> dict[str, str]:
    """Ours, without what would point the tools elsewhere."""
    # torch sets a cache folder of its own, once a test has it compile or export something.
    dropped = ("MLFLOW_", "DVC_", "HYDRA_", "GIT_", "PYTHON", "TORCHINDUCTOR_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # As after `activate`: the commands of dvc.yaml say `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "COLUMNS": "160", **changes}


def copy_project(target: Path) -> Project:
    """The repository's own code and configs, as in a fresh clone, in a git and DVC repository of its own."""
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    for name in _COPIED_FILES:
        shutil.copy(REPOSITORY / name, target / name)
    project = Project(target)
    project.git("init", "-q", "-b", "main")
    project.git("add", "-A")
    project.git("commit", "-qm", "start")
    return project


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal to the group, as a terminal does, and wait."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
