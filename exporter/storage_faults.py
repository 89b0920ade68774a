"""What the user hears when the machine will not do what the batch itself needs: the file, the reason, what to do."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import StorageError
from exporter.failures import is_storage_error

__all__ = [
    "describe_fault",
    "explain_fault",
    "is_fault",
    "require_one_file_system",
    "require_writable",
    "storage_faults",
]

_ADVICE = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EFBIG: "raise the limit on the size of a file, then run the same command again",
    errno.EIO: "check the disk, then run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then run the same command again",
    errno.ENFILE: "raise the system's limit on open files, then run the same command again",
}


def explain_fault(error: OSError, path: Path, key: str) -> StorageError:
    """The error to raise.

    Args:
        error: From the system.
        path: What was worked on; the error's own file, where it has one, is more exact.
        key: Of the config, that says where this lies.
    """
    advice = _ADVICE.get(error.errno or 0, f"choose another with {key}=DIR")
    return StorageError(f"{error.filename or path}: {error.strerror or error}; {advice}")


def describe_fault(error: OSError) -> str:
    """The message where it may be any file that could not be had."""
    advice = _ADVICE.get(error.errno or 0)
    return f"{error}; {advice}" if advice else str(error)


def is_fault(error: OSError) -> bool:
    """Whether the machine is at fault, and not we: the disk, or a limit on open files."""
    return is_storage_error(error) or error.errno in _ADVICE


@contextmanager
def storage_faults(path: Path, key: str) -> Iterator[None]:
    """Turn each OSError of a body that does nothing but file work into a StorageError; see `explain_fault`."""
    try:
        yield
    except OSError as error:
        raise explain_fault(error, path, key) from error


def require_writable(directories: Iterable[Path], key: str) -> None:
    """See that files may be made in directories, before hours are spent on what is to lie there.

    The kernel is asked, not the mode bits: it also knows of read-only file systems and immutable directories.

    Raises:
        StorageError: They may not.
    """
    for path in directories:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise StorageError(f"{path}: not writable; make it so, or choose another with {key}=DIR")


def require_one_file_system(exports: Path, runs: Path) -> None:
    """See that an export can be published by a rename.

    Raises:
        StorageError: It cannot.
    """
    # Of what is not there: nothing is renamed, but two mounts are refused before that is seen, also two of one device.
    nothing = ".modelpress-nothing"
    try:
        (runs / nothing).rename(exports / nothing)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise explain_fault(error, exports, "output.exports") from error
        raise StorageError(
            f"output.exports ({exports}) and output.runs ({runs}) are on different file systems; an export is "
            "published by a rename, which needs them on one"
        ) from error
