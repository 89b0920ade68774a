"""One round of exports on a cluster: hands them to nodes, and turns what these say into the executor's events."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.worker import STATUS_STORAGE
from pipeline.executor import Ended, Ending, Event, Notice, Pulse, Started, Task
from pipeline.on_ray.data_files import describe_data, explain_refusal
from pipeline.on_ray.demand import Demand
from pipeline.on_ray.messages import Beat, Began, DataFile, Failed, Finished, Lacks, Parcel, Piece, Said, Unfit
from pipeline.on_ray.project import is_portable
from pipeline.outcomes import fail_result

__all__ = ["Order", "Round", "Streams"]

# How often the caller gets a turn while nothing happens.
_TICK_S = 0.1
# From a polite end of what runs, which takes a worker that ignores SIGTERM two seconds, to a rude one.
_GRACE_S = 5.0
_LAST_GRACE_S = 2.0
# How often to see whether there still is a node for each export that waits for one, and how long a node may be away: it
# may come back, or the cluster may start another one.
_LOOK_S = 5.0
_ABSENCE_S = 120.0
# NFS keeps what it knows of a directory for up to a minute (acdirmax in nfs(5)).
_LATE_S = 60.0
_PIECE_BYTES = 4 << 20


class Streams(Protocol):
    """Starts exports on nodes, and hands out what they say."""

    def start(self, parcel: Parcel, demand: Demand) -> None: ...

    def keep_data(self, name: str, piece: bytes) -> None:
        """Keep the next bytes of a file, for nodes that lack it; all parcels started from now on have it."""
        ...

    def read(self, timeout_s: float) -> list[tuple[str, Said]]:
        """What was said, each with its export's id; waits for the first of it.

        The last of an export is one of `Lacks`, `Unfit`, `Finished` and `Failed`.
        """
        ...

    def cancel(self, *, force: bool) -> None:
        """Have all that runs end itself and, with force, end it now."""
        ...

    def drop(self, name: str) -> None:
        """End one export that has not begun, without another word of it."""
        ...


@dataclass(frozen=True)
class Order:
    """An export, and what it is to be given."""

    task: Task
    demand: Demand


@dataclass
class _Flight:
    """An export that Ray has."""

    order: Order
    parcel: Parcel
    began_s: float | None = None
    rss_bytes: int | None = None
    # Since when no node has been large enough for it.
    stranded_s: float | None = None
    # Names of files that were sent after a node said that it lacks them.
    sent: set[str] = field(default_factory=set)
    # The files that came back so far.
    received: set[str] = field(default_factory=set)
    problem: OSError | None = None

    @property
    def task(self) -> Task:
        return self.order.task

    @property
    def directory(self) -> ExportDirectory:
        return ExportDirectory(self.task.directory)


class Round:
    """Runs exports in the order given, up to `limit` at a time.

    Args:
        streams: Where they can be started.
        orders: The exports.
        limit: The most that Ray is given at a time; it decides how many of these run.
        fits: Whether there is a node that is large enough for a demand.
        is_here: The nodes see every path of this machine.
        was_alone: What the events say of it.
    """

    def __init__(
        self,
        streams: Streams,
        orders: Sequence[Order],
        limit: int,
        *,
        fits: Callable[[Demand], bool],
        is_here: bool,
        was_alone: bool,
    ) -> None:
        self._streams = streams
        self._waiting = deque(orders)
        # Each server on a node imports once, for whatever exports will come to it.
        self._preloads = tuple(sorted({name for order in orders for name in order.task.preloads}))
        self._limit = limit
        self._fits = fits
        self._next_look_s = time.monotonic() + _LOOK_S
        self._is_here = is_here
        self._was_alone = was_alone
        self._flights: dict[str, _Flight] = {}
        self._kept: set[str] = set()
        self._notices: set[Notice] = set()

    def run(self) -> Generator[Event]:
        """Yield events, and a `Pulse` whenever nothing happens; closed early, it leaves nothing running."""
        try:
            while self._waiting or self._flights:
                while self._waiting and len(self._flights) < self._limit:
                    yield from self._start(self._waiting.popleft())
                for name, said in self._streams.read(_TICK_S):
                    yield from self._take(self._flights[name], said)
                yield from self._end_stranded()
                rss_bytes = {name: flight.rss_bytes for name, flight in self._flights.items()}
                yield Pulse({name: rss for name, rss in rss_bytes.items() if rss is not None})
        finally:
            self._cancel()

    def _start(self, order: Order) -> Iterator[Event]:
        try:
            flight = _Flight(order, self._pack(order))
        except OSError:
            # A disk that takes no token takes no result.
            yield Started(order.task)
            yield Ended(order.task, Ending.exited, STATUS_STORAGE, 0.0)
            return
        self._flights[order.task.id] = flight
        self._streams.start(flight.parcel, order.demand)

    def _pack(self, order: Order) -> Parcel:
        task = replace(order.task, directory=order.task.directory.absolute(), preloads=self._preloads)
        parcel = Parcel(task, token="", files={}, data=(), threads=order.demand.num_cpus)
        if self._is_here:
            return parcel
        directory = ExportDirectory(task.directory)
        token = secrets.token_hex(16)
        (task.directory / Parcel.TOKEN).write_text(token)
        files = {path.name: path.read_bytes() for path in (directory.spec, directory.fingerprint) if path.exists()}
        return replace(parcel, token=token, files=files, data=describe_data(directory))

    def _take(self, flight: _Flight, said: Said) -> Iterator[Event]:
        match said:
            case Finished() if flight.problem is not None:
                yield from self._end(flight, Ending.exited, STATUS_STORAGE)
            case Finished():
                self._forget_step(flight)
                if said.has_result:
                    _await_file(flight.directory.result)
                yield from self._land(flight, replace(said.ended, task=flight.task, was_alone=self._was_alone))
            case Unfit():
                yield from self._end(flight, Ending.lost, evidence=said.reason)
            case Failed():
                yield from self._end(flight, said.ending, evidence=said.evidence)
            case Lacks():
                yield from self._send_data(flight, said)
            case _:
                yield from self._follow(flight, said)

    def _follow(self, flight: _Flight, said: Notice | Began | Beat | Piece) -> Iterator[Event]:
        """Take what is said on the way."""
        match said:
            case Began():
                flight.began_s = time.monotonic()
                yield Started(flight.task)
            case Notice() if said not in self._notices:
                self._notices.add(said)
                yield said
            case Beat():
                flight.rss_bytes = said.rss_bytes
                if said.step is not None:
                    # For the display alone.
                    with suppress(OSError):
                        flight.directory.current_step.write_text(said.step)
            case Piece():
                self._receive(flight, said)

    def _receive(self, flight: _Flight, piece: Piece) -> None:
        """Write the next bytes of a file; a disk that takes none is told of when the export has ended."""
        if not is_portable(piece.name):
            raise ValueError(
                f"{flight.task.id}: a node sent {piece.name!r}, which is outside of the export's directory"
            )
        self._forget_step(flight)
        path = flight.task.directory / piece.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab" if piece.name in flight.received else "wb") as file:
                file.write(piece.data)
        except OSError as error:
            flight.problem = error
        flight.received.add(piece.name)

    def _forget_step(self, flight: _Flight) -> None:
        """Remove our own note of where the export is, before the node's own files come."""
        if not self._is_here and not flight.received and flight.problem is None:
            flight.directory.current_step.unlink(missing_ok=True)

    def _end(self, flight: _Flight, ending: Ending, code: int = 0, evidence: str = "") -> Iterator[Event]:
        """End an export in its node's place; the batch hears of a start before it hears of an end."""
        if flight.began_s is None:
            yield Started(flight.task)
        duration_s = 0.0 if flight.began_s is None else time.monotonic() - flight.began_s
        yield from self._land(flight, Ended(flight.task, ending, code, duration_s, evidence, self._was_alone))

    def _land(self, flight: _Flight, ended: Ended) -> Iterator[Event]:
        del self._flights[flight.task.id]
        (flight.task.directory / Parcel.TOKEN).unlink(missing_ok=True)
        yield ended

    def _end_stranded(self) -> Iterator[Event]:
        """End what waits for a node that is gone; Ray would wait with it for ever, and say nothing."""
        now = time.monotonic()
        if now < self._next_look_s:
            return
        self._next_look_s = now + _LOOK_S
        for name, flight in list(self._flights.items()):
            if flight.began_s is not None or self._fits(flight.order.demand):
                flight.stranded_s = None
                continue
            flight.stranded_s = flight.stranded_s or now
            if now - flight.stranded_s >= _ABSENCE_S:
                self._streams.drop(name)
                evidence = f"the cluster has lost every node that could give it {flight.order.demand}"
                yield from self._end(flight, Ending.lost, evidence=evidence)

    def _send_data(self, flight: _Flight, lacks: Lacks) -> Iterator[Event]:
        """Start an export once more, with the files that a node lacks; or fail it, if they cannot be sent."""
        files = {file.name: file for file in flight.parcel.data}
        for name in lacks.names:
            if reason := explain_refusal(files[name], lacks.node):
                spec = flight.directory.read_spec()
                is_fill = any(item.fill.path == name for item in spec.model.inputs.values())
                kind = FailureKind.input_error if is_fill else FailureKind.weights_error
                fail_result(spec, flight.directory, kind, reason, 0.0)
                yield from self._end(flight, Ending.exited)
                return
        if flight.sent & set(lacks.names):
            evidence = f"{lacks.node} was sent {', '.join(lacks.names)}, and got other bytes; does the file change?"
            yield from self._end(flight, Ending.lost, evidence=evidence)
            return
        try:
            for name in set(lacks.names) - self._kept:
                self._keep(files[name])
        except OSError as error:
            yield from self._end(flight, Ending.lost, evidence=str(error))
            return
        flight.sent.update(lacks.names)
        self._streams.start(flight.parcel, flight.order.demand)

    def _keep(self, file: DataFile) -> None:
        self._kept.add(file.name)
        with Path(file.place).open("rb") as source:
            while piece := source.read(_PIECE_BYTES):
                self._streams.keep_data(file.name, piece)

    def _cancel(self) -> None:
        for force, grace_s in ((False, _GRACE_S), (True, _LAST_GRACE_S)):
            if not self._flights:
                return
            self._streams.cancel(force=force)
            deadline = time.monotonic() + grace_s
            while self._flights and time.monotonic() < deadline:
                for name, said in self._streams.read(_TICK_S):
                    if isinstance(said, Lacks | Unfit | Finished | Failed):
                        (self._flights.pop(name).task.directory / Parcel.TOKEN).unlink(missing_ok=True)


def _await_file(path: Path) -> None:
    """Wait a little for a file that a node has written: a network's file system may show it to us later."""
    deadline = time.monotonic() + _LATE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_TICK_S)
