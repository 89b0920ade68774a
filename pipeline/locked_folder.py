"""A temporary folder whose process may be killed: the next one that makes such a folder removes what it left."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["LockedFolder"]

_LOCK = ".lock"
_UNLOCKED = "new-"


class LockedFolder:
    """A folder of this process's own.

    Args:
        parent: Where to make it.
        prefix: Of its name; folders with the same prefix whose process is gone are removed.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        for path in parent.glob(f"{prefix}*"):
            _remove_if_left(path)
        # It gets its name when it is locked, so that nobody takes it for one that was left.
        made = Path(tempfile.mkdtemp(prefix=f"{_UNLOCKED}{prefix}", dir=parent))
        self._lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name.removeprefix(_UNLOCKED)))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()

    def leave(self) -> None:
        """Leave it to be looked at; the next process that makes such a folder removes it."""
        os.close(self._lock)


def _remove_if_left(path: Path) -> None:
    # Another user's, or gone meanwhile: not ours to look after.
    with suppress(OSError):
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
