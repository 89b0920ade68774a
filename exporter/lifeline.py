"""What the kernel is to do with a process that serves another one: end it with that one, and for that one.

And with what such a process leaves behind.
"""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["adopt_orphans", "die_with_parent", "offer_to_be_killed_first"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Half of the machine's memory, as the kernel weighs it (proc_pid_oom_score_adj(5)).
_OOM_SCORE_ADJ = "500"


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it is gone.

    Args:
        parent: Its process id, where this process knows it; if it is gone already, this process ends at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def offer_to_be_killed_first() -> None:
    """Have the kernel choose this process, and not the one that it serves, when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJ)


def adopt_orphans() -> None:
    """Have the kernel make this process, and not init, the parent of descendants whose own parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
