"""How much memory this process could still take, as the machine and its control group limit it.

Not for what the process uses already: `exporter.memory` reads that.
"""

from pathlib import Path

import psutil

__all__ = ["read_free_bytes"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def read_free_bytes() -> int:
    """What is free of the machine's memory, or of the control group's where that is less (a container, a job)."""
    return min([int(psutil.virtual_memory().available), *_read_group_rooms()])


def _read_group_rooms() -> list[int]:
    """What each control group (version 2) around this process has left; none where there is no limit."""
    try:
        own = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = _GROUPS / own.lstrip("/")
    rooms = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_GROUPS):
            break
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            # Cached file pages count as used, and make way when memory is asked for.
            rooms.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return rooms
