"""A pseudo-terminal to run a program on, and what a person would see there."""

import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b.|[\r\n]|[^\x1b\r\n]")


@dataclass
class Screen:
    """As much of a terminal as our output uses; anything else that moves the cursor fails."""

    columns: int
    lines: list[list[str]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            self._take(token[0], token[1], token[2])

    def _take(self, token: str, argument: str | None, letter: str | None) -> None:
        if token == "\r":
            self.column = 0
        elif token == "\n":
            self._go_down()
        elif letter == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif letter == "K":
            assert argument == "2", token
            self.lines[self.row] = []
        elif letter is None:
            assert token.isprintable(), repr(token)
            self._put(token)
        else:
            assert letter == "m", repr(token)

    def _go_down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append([])

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self._go_down()
        line = self.lines[self.row]
        line.extend(" " * (self.column + 1 - len(line)))
        line[self.column] = character
        self.column += 1

    def show(self) -> list[str]:
        """Its lines, those that have scrolled off at the top too."""
        return ["".join(line).rstrip() for line in self.lines]


@dataclass
class Run:
    """A program that ran on a terminal: its exit status, all that it wrote, and the screen at its end."""

    status: int
    text: str
    screen: list[str]
    # The screen at each moment at which the program went back to draw anew.
    frames: list[list[str]]


def run_on_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 24,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    on_frame: Callable[[int, int, str], None] = lambda terminal, pid, text: None,
) -> Run:
    """Run a program whose standard streams are a pseudo-terminal.

    Args:
        command: The program and its arguments.
        columns: Of the terminal.
        lines: Likewise.
        cwd: The program's working directory.
        env: Its environment; TERM and the like are the caller's business.
        on_frame: Called with the terminal, the program's pid and all text so far whenever the program has written.
    """
    ours, theirs = os.openpty()
    resize(ours, columns, lines)
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=env, start_new_session=True
    )
    os.close(theirs)
    killer = threading.Timer(120, process.kill)
    killer.start()
    written = b""
    try:
        while chunk := _read(ours):
            written += chunk
            on_frame(ours, process.pid, written.decode("utf-8", errors="replace"))
        status = process.wait()
    finally:
        killer.cancel()
        process.kill()
        os.close(ours)
    text = written.decode("utf-8", errors="replace")
    screen, frames = Screen(columns), []
    for part in re.split(r"(?=\r\x1b\[2K)", text):
        screen.feed(part)
        frames.append(screen.show())
    return Run(status, text, screen.show(), frames)


def resize(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        # The last program on the terminal has ended.
        return b""
