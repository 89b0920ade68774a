"""Moves a finished export into exports/, whole or not at all, and durably.

A rename within one file system is atomic. Where an export of that id stands already the two directories are
exchanged in one step, so that at every instant one of them, whole, is there.

What is waited for: the bytes of every file of the export and the entries of its directories before they are shown,
the entry in exports/ before the older export is removed. The entry that the rename took out of runs/ is not: file
systems write both sides of a rename together.
"""

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from exporter.directory import ExportDirectory, NewerSchemaError
from exporter.files import sync
from exporter.plain_data import DataError
from exporter.result import ExportResult, Status

__all__ = ["publish", "restore_replaced"]

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
        OSError: The disk would not. What stood at the target still does, or else the export does, whole, and only
            whether a power failure would undo that is not known.
    """
    damaged = source.damaged_files(result)
    if damaged:
        raise ValueError(f"{', '.join(damaged)}: the bytes are not those that were checked")
    _sync_tree(source.path)
    if not os.path.lexists(target):
        source.path.rename(target)
        sync(target.parent)
    elif _exchange(source.path, target):
        sync(target.parent)
        shutil.rmtree(source.path, ignore_errors=True)
    else:
        _replace(source.path, target)


def restore_replaced(exports: Path) -> None:
    """Bring back what `publish` had set aside when it was cut off, on a file system that cannot exchange directories.

    Args:
        exports: Whose lock the caller holds.

    Raises:
        OSError: The disk would not; to be called again.
    """
    aside = _place_aside(exports)
    if not aside.is_dir():
        return
    for path in aside.iterdir():
        target = exports / path.name
        # It may be what is left of one that was being removed.
        if not os.path.lexists(target) and _is_whole(ExportDirectory(path)):
            path.rename(target)
            sync(exports)
        else:
            shutil.rmtree(path)
    aside.rmdir()


def _place_aside(exports: Path) -> Path:
    # Beside the directory, as its lock: exports/ holds exports only, and the next run may have another runs/.
    return exports.parent / f".{exports.name}.replaced"


def _is_whole(export: ExportDirectory) -> bool:
    try:
        result = export.read_result()
        return result.status is Status.passed and not export.damaged_files(result)
    except NewerSchemaError:
        # Not ours to judge, and certainly not to remove.
        return True
    except (FileNotFoundError, DataError):
        return False


def _sync_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory, topdown=False):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(folder))


def _exchange(source: Path, target: Path) -> bool:
    """Swap two directories by renameat2(2) with RENAME_EXCHANGE; False where system or file system has it not."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None:
        return False
    if exchange(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(target))
    return False


def _replace(source: Path, target: Path) -> None:
    """Two renames, between which the target is not there; a run that is cut off there leaves it to the next start."""
    aside = _place_aside(target.parent) / target.name
    aside.parent.mkdir(exist_ok=True)
    target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        with suppress(OSError):
            aside.rename(target)
        raise
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        aside.parent.rmdir()
