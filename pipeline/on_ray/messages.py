"""What the batch's process, the gateway and the nodes of a cluster say to each other: plain data, pickled.

All sides have the same modelpress; the first thing that is asked of a node is which one it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from exporter.errors import ExitCode
from pipeline.executor import Ended, Ending, Event, Notice, Task

__all__ = [
    "Answer",
    "Beat",
    "Began",
    "Command",
    "DataFile",
    "Done",
    "Failed",
    "Finished",
    "Job",
    "Lacks",
    "Options",
    "Parcel",
    "Piece",
    "Ready",
    "Refused",
    "Require",
    "Run",
    "Said",
    "Stop",
    "Unfit",
]


@dataclass(frozen=True)
class Options:
    """Of one executor.

    Args:
        address: Of a running cluster; None starts one on this machine.
        workers: Exports at a time; None: as many as the cluster holds.
        timeout_s: An export that takes longer is ended.
        budget_bytes: What exports on one node may be expected to need together; None: what Ray says that it has.
        runtime_env: Ray's runtime environment for whatever runs on the nodes.
        outputs: Names of folders that are written to, and so are no part of the project.
        path: `sys.path`, with the project's folders.
    """

    address: str | None
    workers: int | None
    timeout_s: float
    budget_bytes: int | None
    runtime_env: dict[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


# From the batch to the gateway.


@dataclass(frozen=True)
class Require:
    """Could each of these ever run? Answered by `Ready` or `Refused`."""

    tasks: Sequence[Task]


@dataclass(frozen=True)
class Run:
    """Run these; answered by events and, after the last one, `Done`."""

    tasks: Sequence[Task]
    alone: bool


@dataclass(frozen=True)
class Stop:
    """Cancel what runs; answered by `Done`."""


Command = Require | Run | Stop


# From the gateway to the batch.


@dataclass(frozen=True)
class Ready:
    """The cluster is there, its nodes are fit, and what was required could run."""


@dataclass(frozen=True)
class Refused:
    """It cannot be done; the text is for the user."""

    text: str
    code: ExitCode


@dataclass(frozen=True)
class Done:
    """Nothing of the tasks runs any more."""


Answer = Ready | Refused | Done | Event


# From the gateway to a node.


@dataclass(frozen=True)
class Job:
    """What is the same for all exports of an executor.

    Args:
        timeout_s: As in `Options`.
        versions: Of what decides the bytes of an export; a node has to have the same.
        commit: The project's state in git, which a node has no copy of.
        directory: The working directory; on a node of another machine, relative to where Ray unpacked the project.
        path: `sys.path`, of which a node of another machine has the project's folders alone, relative likewise.
        is_here: The nodes are this machine, so that every path means there what it means here.
    """

    timeout_s: float
    versions: dict[str, str]
    commit: str
    directory: str
    path: tuple[str, ...]
    is_here: bool


@dataclass(frozen=True)
class DataFile:
    """A file that a spec names: a checkpoint, a shard of one, a fill.

    Args:
        name: As in the spec; relative to the working directory, or absolute.
        place: Where it is on the batch's machine.
        size_bytes: Of all of it.
        sha256: Of its bytes.
    """

    name: str
    place: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """One export on its way to a node.

    Args:
        task: Its directory is absolute, and that of the batch's machine.
        token: What the file `TOKEN` in that directory says; a node that reads it there shares it.
        files: What the directory has in it, for a node that does not share it.
        data: What its spec names.
        threads: Of torch and ONNX Runtime.
    """

    task: Task
    token: str
    files: dict[str, bytes]
    data: tuple[DataFile, ...]
    threads: int

    TOKEN = ".seen_by_node"  # noqa: S105  (no secret: it is the name of a file)


# From a node to the gateway.


@dataclass(frozen=True)
class Lacks:
    """The node has no such files, by their names in the spec; the export was not begun."""

    names: tuple[str, ...]
    node: str


@dataclass(frozen=True)
class Unfit:
    """The node must not run it, for a reason in words; the export was not begun."""

    reason: str


@dataclass(frozen=True)
class Began:
    """Its worker runs."""


@dataclass(frozen=True)
class Beat:
    """It still runs; at which step, if the batch cannot read that itself."""

    rss_bytes: int | None
    step: str | None


@dataclass(frozen=True)
class Piece:
    """The next bytes of a file that the export left, in a directory that the batch does not see."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Finished:
    """Its worker is gone, and all its files were sent.

    Args:
        ended: How it ended.
        has_result: The node sees a result.json.
    """

    ended: Ended
    has_result: bool


@dataclass(frozen=True)
class Failed:
    """What Ray says in the place of a node that no longer can."""

    ending: Ending
    evidence: str


Said = Lacks | Unfit | Notice | Began | Beat | Piece | Finished | Failed
