"""The seam between a batch and whatever runs its workers."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

__all__ = ["Ended", "Ending", "Event", "Executor", "Started", "Task"]


class Ending(StrEnum):
    """How a worker process came to its end."""

    exited = "exited"
    signalled = "signalled"
    timed_out = "timed_out"


@dataclass(frozen=True)
class Task:
    """One export to run: its directory holds spec.json, and result.json afterwards."""

    id: str
    directory: Path


@dataclass(frozen=True)
class Started:
    """A worker took a task up."""

    task: Task


@dataclass(frozen=True)
class Ended:
    """A worker is gone. Whether it left a result is for the reader of the directory to see.

    Args:
        task: What it was to do.
        ending: How it ended.
        code: The exit status, or the number of the signal; the time-out in seconds, rounded.
        duration_s: From start to end.
    """

    task: Task
    ending: Ending
    code: int
    duration_s: float


Event = Started | Ended


class Executor(Protocol):
    """Runs a worker for each task.

    Every task gets a `Started` and then an `Ended`, whatever happens to its worker; no worker outlives the
    generator, also if that is closed early.
    """

    def run(self, tasks: Sequence[Task]) -> Generator[Event | None]:
        """Yield events as they happen, and None now and then so that the caller can look after its display."""
        ...
