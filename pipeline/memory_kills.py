"""Evidence that the kernel killed a process for its memory: counters that it keeps of such kills.

A SIGKILL alone is none: an operator sends the same. A control group counts the kills within it (`memory.events` of
version 2, `memory.oom_control` of version 1), and /proc/vmstat those of the whole machine (`oom_kill`, Linux 4.13).
Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/memory.html.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.control_group import find_groups

__all__ = ["KillCounts"]

_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class KillCounts:
    """How many processes the kernel has killed for their memory, by the file that says so."""

    counts: dict[Path, int]

    @classmethod
    def read(cls) -> "KillCounts":
        """The counts now, the most telling one first."""
        return cls(dict(_read_counts()))

    def explain_rise(self, later: "KillCounts") -> str:
        """Which count rose from this reading to a later one, in words; empty if none did."""
        for path, count in later.counts.items():
            risen = count - self.counts.get(path, count)
            if risen > 0:
                return f"oom_kill in {path} rose by {risen}"
        return ""


def _read_counts() -> Iterator[tuple[Path, int]]:
    files = [folder / name for folder in find_groups() for name in ("memory.events", "memory.oom_control")]
    for path in (*files, _VMSTAT):
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            yield path, int(found[1])
