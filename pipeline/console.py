"""The console that our words go to: rich's, where that leaves to us what it decides for its callers."""

import os
from typing import TextIO

from rich.console import Console, ConsoleDimensions

from pipeline.streams import silence

__all__ = ["OwnConsole"]

# A file or a pipe has no width; rich would fold tables at 80.
_WIDTH_OF_A_FILE = 160
_DEFAULT_SIZE = os.terminal_size((80, 25))


class OwnConsole(Console):
    """Never ends the process, nor takes anything for its output but the file that it is given."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file=file, highlight=False, emoji=False)
        if not self.is_terminal:
            self.width = _WIDTH_OF_A_FILE

    @property
    def is_live(self) -> bool:
        """Whether lines can be drawn over: on a terminal that moves its cursor, whatever `FORCE_COLOR` says."""
        try:
            return self.file.isatty() and not self.is_dumb_terminal
        except ValueError:
            return False

    @property
    def is_ascii(self) -> bool:
        """Whether to do without dashes and dots that the terminal may not have."""
        names = ("LC_ALL", "LC_CTYPE", "LANG")
        locale = next((os.environ[name] for name in names if os.environ.get(name)), "")
        return locale in ("C", "POSIX") or not self.encoding.startswith("utf")

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal behind our stream; rich asks file descriptors 0 to 2, which may lead elsewhere by now."""
        if self._width is not None and self._height is not None:
            return ConsoleDimensions(self._width, self._height)
        try:
            found = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            found = _DEFAULT_SIZE
        # A pseudo-terminal may say 0 by 0.
        columns, lines = found.columns or _DEFAULT_SIZE.columns, found.lines or _DEFAULT_SIZE.lines
        return ConsoleDimensions(self._width or columns, self._height or lines)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
        """Leave the cursor as it is: a batch that is killed could not bring it back."""
        return False

    def on_broken_pipe(self) -> None:
        """Leave it to the caller what happens when the reader is gone; rich would end the process."""
        raise BrokenPipeError

    def silence(self) -> None:
        """Write to nowhere from now on."""
        del self._buffer[:]
        silence(self.file)
