"""Who may write where: our own words to standard output and standard error, everybody else's to a log.

MLflow, its migrations, DVC, their progress bars and warnings, git and libraries in C all write to the same two file
descriptors as we do, and would tear the live view apart. While a batch runs these lead to a log of the run, and we
write to duplicates of what they were.
"""

import io
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TextIO

__all__ = ["Diversion", "duplicate", "escape", "silence"]

_OUTPUT, _ERRORS = 1, 2
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def duplicate(stream: TextIO | None) -> TextIO:
    """A stream of our own to where standard output or standard error leads now.

    What its encoding does not have is written as an escape. A stream that is not one of the two, in a test or a
    notebook, is taken as it is. Where there is none, because it was closed from the start, it leads to nowhere.
    """
    if stream is None:
        return Path(os.devnull).open("w")
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return stream
    if number not in (_OUTPUT, _ERRORS):
        return stream
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        os.fdopen(os.dup(number), "wb"), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )


def silence(stream: IO[str]) -> None:
    """Lead a stream whose reader is gone to nowhere, so that nobody fails at what is left in its buffer."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


def escape(text: str) -> str:
    """The text with an escape for each character that would move a terminal's cursor, or cannot be written at all.

    Models raise exceptions with anything in them: colours, carriage returns, bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Diversion:
    """Within the body, what is written to file descriptors 1 and 2, by others or by our children, goes to a log.

    Log records and warnings do too. Until there is a place for the log they are held back; what began before that, and
    so writes there to the end, is added at the end. Without a log all of it is dropped: nothing came about that it
    could be about.
    """

    def __init__(self) -> None:
        # To where standard output and standard error led before.
        self.output = duplicate(sys.stdout)
        self.errors = duplicate(sys.stderr)
        self._held_back = -1
        self._log: Path | None = None
        self._num_copied = 0
        self._before: list[tuple[int, int]] = []
        self._handler = logging.StreamHandler(_Descriptor(_ERRORS))
        self._handler.setFormatter(logging.Formatter(_FORMAT))
        self._level = logging.NOTSET

    def __enter__(self) -> Self:
        # In memory: a batch may run where no temporary file can be made.
        self._held_back = os.memfd_create("modelpress")
        _flush()
        self._before = [(number, os.dup(number)) for number in (_OUTPUT, _ERRORS)]
        self._lead_to(self._held_back)
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        return self

    def keep_in(self, log: Path) -> None:
        """From now on write to a log, with what was held back in front.

        Raises:
            OSError: The log cannot be opened.
        """
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._log = log
        _flush()
        self._lead_to(file)
        os.close(file)
        self._copy()

    @property
    def has_words(self) -> bool:
        """Whether anybody has written anything that is, or will be, in the log."""
        if self._log is None:
            return False
        return self._log.stat().st_size > 0 or os.fstat(self._held_back).st_size > self._num_copied

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        root.setLevel(self._level)
        root.removeHandler(self._handler)
        _flush()
        for number, kept in self._before:
            os.dup2(kept, number)
            os.close(kept)
        with suppress(OSError):
            self._copy()
            if self._log is not None and self._log.stat().st_size == 0:
                self._log.unlink()
        os.close(self._held_back)

    @staticmethod
    def _lead_to(file: int) -> None:
        for number in (_OUTPUT, _ERRORS):
            os.dup2(file, number)

    def _copy(self) -> None:
        """Add to the log what was held back since the last time."""
        text = os.pread(self._held_back, os.fstat(self._held_back).st_size - self._num_copied, self._num_copied)
        self._num_copied += len(text)
        if self._log is not None and text:
            with self._log.open("ab") as file:
                file.write(text)


class _Descriptor(io.TextIOBase):
    """Text to a file descriptor, wherever that leads by then."""

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, text: str) -> int:
        os.write(self._number, text.encode("utf-8", errors="backslashreplace"))
        return len(text)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
