"""One run at a time for an output directory; the kernel lets go of the lock however the run ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from exporter.errors import LockedError
from exporter.files import read_json
from exporter.plain_data import DataError
from exporter.storage_faults import explain_fault, storage_faults

__all__ = ["lock_output"]

_KEY = "output.exports"


@contextmanager
def lock_output(exports: Path) -> Iterator[None]:
    """Hold the lock of an exports directory, which is created if missing.

    Raises:
        LockedError: Another run holds it; the message names that run's process.
        StorageError: The directory, or the lock beside it, cannot be written.
    """
    # Beside the directory, not in it: exports/ holds exports only.
    path = exports.parent / f".{exports.name}.lock"
    holder = exports.parent / f".{exports.name}.lock.json"
    with storage_faults(exports, _KEY):
        exports.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{exports}: in use by another run{_name_holder(holder)}; wait for it to end") from error
    except OSError as error:
        raise explain_fault(error, path, _KEY) from error
    try:
        with storage_faults(holder, _KEY):
            # A killed run's, perhaps somebody else's: not to be written into.
            holder.unlink(missing_ok=True)
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        # It names a process that is gone, then; who reads it sees to that.
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _name_holder(path: Path) -> str:
    try:
        holder = read_json(path)
        pid, host = int(holder["pid"]), str(holder["host"])
    except (OSError, DataError, KeyError, TypeError, ValueError):
        return ""
    # Of a run that was killed, while the one that has the lock now is about to write its own.
    is_gone = host == socket.gethostname() and not psutil.pid_exists(pid)
    return "" if is_gone else f" (process {pid} on {host})"
