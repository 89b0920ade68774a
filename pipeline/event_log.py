"""events.jsonl: what happened in a batch, a line each, for machines; docs/progress.md has the events and their keys.

It is read while it is written, and after its writer was killed. So each event is one line in one write: a reader sees
all of it or nothing.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["EVENTS_VERSION", "append_event", "read_events"]

# Of the events and their keys; a new key leaves it as it is.
EVENTS_VERSION = 1


def append_event(path: Path, event: str, **details: object) -> None:
    """Add a line at the end, with the time, or nothing.

    Raises:
        OSError: The disk would not.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": time, "event": event, **details}).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        _append(file, line)
    finally:
        os.close(file)


def _append(file: int, line: bytes) -> None:
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) != b"\n":
        # Whoever wrote before was killed in the middle of a line that did not fit.
        line = b"\n" + line
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError:
        # A full disk takes a part of a line.
        os.ftruncate(file, end)
        raise


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events so far; what is no event, such as a line that is half written, is passed over.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event
