"""A new MLflow store in a file: there whole or not at all.

MLflow makes the tables in place, one by one. A process that is killed at it, or runs out of room, leaves a broken file,
which no later run mends.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["make_store"]


def make_store(path: Path, fill: Callable[[str], object]) -> None:
    """Make a store where there is none.

    Args:
        path: The file, on which the caller holds a lock.
        fill: Makes the tables in a file that does not exist yet, whose URI it is given.

    Raises:
        OSError: The disk would not.
    """
    if path.exists():
        return
    prefix = f".{path.name}.new-"
    for left in path.parent.glob(f"{prefix}*"):
        # Of a process that was killed at it: we have the lock.
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        made = Path(folder, path.name)
        fill(f"sqlite:///{made.resolve()}")
        made.rename(path)
