"""The log of one worker: all that it and what it starts print, up to a size; of more, the beginning and the end.

A worker that prints without end must not fill the disk that the exports go to. It prints into a pipe, therefore, and
a thread of the executor's process writes its log; a file of its own could only be cut after the fact.
"""

import os
import threading
from collections import deque
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import BinaryIO

__all__ = ["WorkerLog"]

_HEAD_BYTES = 5_000_000
_TAIL_BYTES = 5_000_000
_CHUNK_BYTES = 1 << 16
# How long to wait for the last words: the pipe ends when all who print into it have.
_LAST_WORDS_S = 2.0


class WorkerLog:
    """Copies from a pipe to a file.

    Args:
        path: Of the log, which is written anew.
        head_bytes: Of the beginning, which is written as it comes.
        tail_bytes: Of the end, which is kept in memory and written when the worker is gone.
    """

    def __init__(self, path: Path, head_bytes: int = _HEAD_BYTES, tail_bytes: int = _TAIL_BYTES) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._tail: deque[bytes] = deque()
        self._num_tail_bytes = 0
        self._num_left_out = 0
        self._reader, self.writer = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._copy, args=(path,), name=f"log of {path.parent.name}", daemon=True)

    def begin(self) -> None:
        """Begin to copy, now that the worker has its end of the pipe; ours is closed."""
        self.writer.close()
        self._thread.start()

    def end(self, *, is_over: bool = True) -> None:
        """Write the end of the log.

        Args:
            is_over: The worker and its children are gone; otherwise last words are not waited for.
        """
        self.writer.close()
        if is_over and self._thread.ident is not None:
            self._thread.join(_LAST_WORDS_S)

    def _copy(self, path: Path) -> None:
        # A log that cannot be written is no reason to stop a worker: it goes on printing, into nothing.
        with suppress(OSError), path.open("wb", buffering=0) as file:
            self._copy_to(file)
        with suppress(OSError):
            while self._read():
                pass
        self._reader.close()

    def _read(self) -> bytes:
        return os.read(self._reader.fileno(), _CHUNK_BYTES)

    def _copy_to(self, file: BinaryIO) -> None:
        room = self._head_bytes
        while chunk := self._read():
            if room:
                file.write(chunk[:room])
            self._keep(chunk[room:])
            room -= min(room, len(chunk))
        if self._num_left_out:
            file.write(f"\n[... {self._num_left_out:,} bytes left out ...]\n".encode())
        file.writelines(self._tail)

    def _keep(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._tail.append(chunk)
        self._num_tail_bytes += len(chunk)
        while self._num_tail_bytes - len(self._tail[0]) >= self._tail_bytes:
            dropped = len(self._tail.popleft())
            self._num_tail_bytes -= dropped
            self._num_left_out += dropped
