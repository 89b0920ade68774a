"""Finds the control groups that this process is in, as far as they count memory; Linux has two versions of them."""

from pathlib import Path

__all__ = ["find_groups"]

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def find_groups() -> list[Path]:
    """The folders of this process's own group and of those around it, innermost first; empty where there are none."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        # Version 2 has one hierarchy for everything; version 1 one for each controller.
        if number == "0" and not controllers:
            root = _ROOT
        elif "memory" in controllers.split(","):
            root = _ROOT / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
