"""The seam between a batch and whatever runs its workers."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

__all__ = ["Ended", "Ending", "Event", "Executor", "Notice", "Pulse", "Started", "Task"]


class Ending(StrEnum):
    """How a worker process came to its end."""

    exited = "exited"
    signalled = "signalled"
    timed_out = "timed_out"
    # The kernel, or Ray, killed it for its memory, and there is evidence of that.
    out_of_memory = "out_of_memory"
    # What it ran on is gone: the server it was forked from, or the whole machine.
    lost = "lost"


@dataclass(frozen=True)
class Task:
    """One export to run: its directory holds spec.json, and result.json afterwards.

    Args:
        id: Of the export.
        directory: Of the export, under runs/.
        memory_bytes: What its worker is expected to need at its peak, beyond what all workers share.
        on_gpu: Its worker starts CUDA, so it has to be a process of its own making, not a fork of a warm one.
        preloads: Dotted names in installed packages that its worker will import; to be imported once for all.
    """

    id: str
    directory: Path
    memory_bytes: int = 0
    on_gpu: bool = False
    preloads: tuple[str, ...] = ()


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
        evidence: What an `out_of_memory` or a `lost` is concluded from, in words.
        was_alone: No other worker ran at any time beside it.
    """

    task: Task
    ending: Ending
    code: int
    duration_s: float
    evidence: str = ""
    was_alone: bool = False


@dataclass(frozen=True)
class Pulse:
    """Nothing happened; comes several times a second, so that the caller can look after its display.

    Args:
        rss_bytes: Resident memory of each running worker, by its task's id; those that cannot be read are left out.
    """

    rss_bytes: dict[str, int]


@dataclass(frozen=True)
class Notice:
    """Something that makes exports slower, or else of interest to a person, though nothing fails of it."""

    text: str


Event = Started | Ended | Notice | Pulse


class Executor(Protocol):
    """Runs a worker for each task.

    Every task gets a `Started` and then an `Ended`, whatever happens to its worker; no worker outlives the
    generator, also if that is closed early.
    """

    def prepare(self) -> None:
        """Begin in the background what takes long before the first worker can run; `run` does it otherwise."""
        ...

    def require(self, tasks: Sequence[Task]) -> None:
        """See that each of these could ever run; to be called before anything starts.

        Raises:
            ConfigError: One asks for more than there is anywhere.
            ClusterError: There is nothing to run on.
        """
        ...

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        """Yield events as they happen, and a `Pulse` in between.

        Args:
            tasks: Started in this order, as far as their memory allows.
            alone: One at a time, each with all the memory there is in one place.

        Raises:
            WorkerError: No worker can be run at all.
        """
        ...

    def close(self, *, at_once: bool = False) -> None:
        """Let go of what `prepare` began; to be called last, whatever happened.

        Args:
            at_once: Also kill what runs, from another thread than the one that is in `run`; the process will end.
        """
        ...
