"""One run at a time for an output directory; the kernel lets go of the lock however the run ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from exporter.errors import LockedError, StorageError

__all__ = ["lock_output"]


@contextmanager
def lock_output(exports: Path) -> Iterator[None]:
    """Hold the lock of an exports directory, which is created if missing.

    Raises:
        LockedError: Another run holds it; the message names that run's process.
        StorageError: The directory cannot be written.
    """
    # Beside the directory, not in it: exports/ holds exports only.
    path = exports.parent / f".{exports.name}.lock"
    holder = exports.parent / f".{exports.name}.lock.json"
    try:
        exports.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{exports}: in use by another run{_name_holder(holder)}; wait for it to end") from error
    except OSError as error:
        raise StorageError(f"{exports}: {error.strerror or error}; choose another with output.exports=DIR") from error
    try:
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        except OSError as error:
            raise StorageError(f"{holder}: {error.strerror}") from error
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _name_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f" (process {holder['pid']} on {holder['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
