"""A folder that lives as long as the objects that need it: for notebooks, which name no directory."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

__all__ = ["TemporaryFolder"]


class TemporaryFolder:
    """Removed when nothing refers to this object any more, at the latest when the interpreter ends.

    Unlike `tempfile.TemporaryDirectory` it does so without a warning, and not in a forked child, which has a copy of
    the object and shares the folder. It lies where `TMPDIR` says.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="modelpress-"))
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
