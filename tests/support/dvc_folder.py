"""git and DVC, as commands, in the working directory."""

import subprocess
import sys

from project import make_environment


def make_repository() -> None:
    git("init", "-q", "-b", "main")
    git("config", "user.name", "t")
    git("config", "user.email", "t@example.org")
    dvc("init", "-q")


def dvc(*arguments: str) -> str:
    return _call(sys.executable, "-m", "dvc", *arguments)


def git(*arguments: str) -> str:
    return _call("git", *arguments)


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=make_environment({}), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
