"""Shows a command as the user has to type it."""

import shutil
import sys
from pathlib import Path

__all__ = ["show_command"]


def show_command(name: str) -> str:
    """The name of a program of our environment, with its path where the shell would not find that one."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found) == ours:
        return name
    try:
        return str(ours.relative_to(Path.cwd()))
    except ValueError:
        return str(ours)
