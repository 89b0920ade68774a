"""Memory of this process, as the Linux kernel counts it.

`VmHWM` in /proc/self/status is the highest resident set since it was last reset; writing 5 to
/proc/self/clear_refs resets it (https://docs.kernel.org/filesystems/proc.html). `ru_maxrss` is no substitute:
a child inherits its parent's.
"""

import re
from pathlib import Path

__all__ = ["read_peak_rss_bytes", "read_rss_bytes", "reset_peak_rss"]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


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
