"""How much memory this process could still take, as the machine and its control group limit it.

Not for what the process uses already: `exporter.memory` reads that.
"""

from pathlib import Path

import psutil

from exporter.control_group import find_groups

__all__ = ["read_free_bytes"]

# The limit, the use, and in memory.stat the cached pages within the use: of control groups of version 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def read_free_bytes() -> int:
    """What is free of the machine's memory, or of the control group's where that is less (a container, a job)."""
    rooms = [room for group in find_groups() for names in _FILES if (room := _read_room(group, *names)) is not None]
    return min([int(psutil.virtual_memory().available), *rooms])


def _read_room(group: Path, limit_name: str, use_name: str, cache_name: str) -> int | None:
    """What a control group has left; None where it has no limit."""
    try:
        limit, used = ((group / name).read_text().strip() for name in (limit_name, use_name))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    # Cached file pages count as used, and make way when memory is asked for.
    return int(limit) - int(used) + int(stat.get(cache_name, 0))
