"""Memory of a process, as the Linux kernel counts it.

`VmHWM` in /proc/self/status is the highest resident set since it was last reset; writing 5 to
/proc/self/clear_refs resets it (https://docs.kernel.org/filesystems/proc.html). `ru_maxrss` is no substitute:
a child inherits its parent's. The kernel keeps no such mark for the anonymous part; `exporter.sampling` watches it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "UsageReader", "read_peak_rss_bytes", "read_rss_bytes", "read_usage", "reset_peak_rss"]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory of a process at one moment.

    Anonymous memory is what no file backs: heaps, tensors, stacks. The rest of the resident set are pages of mapped
    files, such as libraries and mapped weights, which the kernel can drop and read again when memory is short.
    """

    rss_bytes: int
    anon_bytes: int


class UsageReader:
    """Reads the memory of one process again and again, in two microseconds each.

    Args:
        pid: Of the process; None is this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        # The same counters as VmRSS and RssAnon of /proc/<pid>/status, which takes ten times as long to read. Kept
        # open, because each system call hands Python's lock to a thread that is at work.
        self._file = os.open(f"/proc/{'self' if pid is None else pid}/statm", os.O_RDONLY)

    def read(self) -> Usage | None:
        """The memory now; None once the process has ended."""
        try:
            _, resident, shared, *_ = os.pread(self._file, 256, 0).split()
        except (OSError, ValueError):
            return None
        if int(resident) == 0:
            # A zombie: it has ended, and nobody has asked for its exit status yet.
            return None
        return Usage(int(resident) * _PAGE_BYTES, (int(resident) - int(shared)) * _PAGE_BYTES)

    def close(self) -> None:
        os.close(self._file)


def read_usage() -> Usage | None:
    """The memory of this process now; None without a Linux /proc."""
    try:
        reader = UsageReader()
    except OSError:
        return None
    try:
        return reader.read()
    finally:
        reader.close()


def reset_peak_rss() -> bool:
    """Start the high-water mark anew; False where the kernel does not allow it."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def read_peak_rss_bytes() -> int | None:
    """The highest resident set since the last reset, in bytes; None without a Linux /proc."""
    return _read_status("VmHWM")


def read_rss_bytes() -> int | None:
    """The resident set now, in bytes; None without a Linux /proc."""
    return _read_status("VmRSS")


def _read_status(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
