"""Workers that do nothing, in no time: targets for tests of how workers are ended. Without torch."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

__all__ = ["AT_WORK", "ignore_sigterm", "lead_no_group"]

# The file, in a worker's directory, that says that it is at work; holds its process id.
AT_WORK = "at_work"


def lead_no_group(path: str, threads: int, output: Connection) -> None:
    """Stay where every worker is for a moment: in the process group of the server that it was forked from."""
    _wait(path)


def ignore_sigterm(path: str, threads: int, output: Connection) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _wait(path)


def _wait(path: str) -> None:
    part = Path(path) / f"{AT_WORK}.new"
    part.write_text(str(os.getpid()))
    part.rename(part.with_name(AT_WORK))
    time.sleep(300)
