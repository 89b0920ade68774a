"""The sha256 of files: each read once in an invocation, large ones in threads beside whatever else is done.

hashlib and the kernel let go of the interpreter's lock while they work, so threads hash as fast as processes would.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from exporter.checkpoint import find_files, hash_weights
from exporter.files import hash_file

__all__ = ["Hashes"]

# More threads than this wait for the disk.
_MAX_THREADS = 4
# A smaller file is hashed sooner than it is handed over.
_LARGE_BYTES = 1 << 20
# While another thread computes, a thread waits up to 5 ms for the interpreter's lock after each piece; 8 MiB take as
# long to hash.
_PIECE_BYTES = 8 << 20


class Hashes:
    """What the files of one invocation hash to; a file that changes meanwhile is not read again."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MAX_THREADS, "hash")
        self._files: dict[Path, Future[str]] = {}

    def start(self, path: Path) -> None:
        """See to it that a file is hashed by the time it is asked for."""
        if path in self._files:
            return
        hash_it = partial(hash_file, path, _PIECE_BYTES)
        if _is_large(path):
            self._files[path] = self._pool.submit(hash_it)
            return
        done: Future[str] = Future()
        try:
            done.set_result(hash_it())
        except OSError as error:
            done.set_exception(error)
        self._files[path] = done

    def start_weights(self, path: Path) -> None:
        """The same of every file of a checkpoint."""
        for file in find_files(path):
            self.start(file)

    def of_file(self, path: Path) -> str:
        """The sha256 of a file.

        Raises:
            OSError: It cannot be read.
        """
        self.start(path)
        return self._files[path].result()

    def of_weights(self, path: Path) -> str:
        """The sha256 of a checkpoint, as `hash_weights` defines it.

        Raises:
            CheckpointError: Its files are not there.
            OSError: One cannot be read.
        """
        return hash_weights(path, self.of_file)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size >= _LARGE_BYTES
    except OSError:
        return False
