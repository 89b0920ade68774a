"""Moves a finished export into exports/, whole or not at all.

A rename within one file system is atomic. Where an export of that id stands already the two directories are
exchanged in one step, so that at every instant one of them, whole, is there.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.result import ExportResult

__all__ = ["publish"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def publish(source: ExportDirectory, target: Path, result: ExportResult) -> None:
    """Put the directory of a passed export in the place of the last good one.

    Args:
        source: On the same file system as the target.
        target: The directory under exports/; what stood there is removed.
        result: Of the export, whose files are hashed once more before they are shown to anyone.

    Raises:
        ValueError: A file is not what the worker recorded; nothing was moved.
        OSError: The disk would not; what stood at the target still does.
    """
    damaged = source.damaged_files(result)
    if damaged:
        raise ValueError(f"{', '.join(damaged)}: the bytes are not those that were checked")
    _sync_tree(source.path)
    if target.exists():
        _exchange(source.path, target)
        shutil.rmtree(source.path, ignore_errors=True)
    else:
        source.path.rename(target)
    _sync(target.parent)


def _sync_tree(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_file():
            _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(source: Path, target: Path) -> None:
    """Swap two directories: renameat2(2) with RENAME_EXCHANGE, or three renames where the file system has it not."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(target))
    aside = source.with_name(f".{source.name}.replaced")
    target.rename(aside)
    source.rename(target)
    aside.rename(source)
