"""Ray tasks as the gateway sees them: each is a stream of messages, the last of which says how it went.

Ray's own generators are that stream. Its client (`ray://`) has none, so there an actor within the cluster reads them.
"""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ObjectRefStreamEndOfStreamError, OutOfMemoryError, RayError, RayTaskError

from pipeline.executor import Ending
from pipeline.on_ray.demand import Demand
from pipeline.on_ray.messages import Failed, Finished, Job, Lacks, Parcel, Said, Unfit
from pipeline.on_ray.supervisor import supervise

__all__ = ["DirectStreams", "RelayedStreams", "explain_error"]

# A node waits with more until we have read these: with pieces of 2 MiB, 32 MiB of its object store for an export.
_MAX_UNREAD = 16
_MAX_EVIDENCE = 240


class DirectStreams:
    """For a process that is part of the cluster.

    Args:
        job: Of all exports.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        # Nothing is tried again behind our back: the batch counts and shows tries.
        self._supervise = ray.remote(num_returns="streaming", max_retries=0)(supervise)
        self._streams: dict[str, Any] = {}
        self._data: dict[str, list[Any]] = {}

    def start(self, parcel: Parcel, demand: Demand) -> None:
        data = {file.name: self._data[file.name] for file in parcel.data if file.name in self._data}
        task = self._supervise.options(
            name=f"export {parcel.task.id}",
            num_cpus=demand.num_cpus,
            memory=demand.memory_bytes,
            num_gpus=demand.num_gpus,
            scheduling_strategy="SPREAD",
            _generator_backpressure_num_objects=_MAX_UNREAD,
        )
        self._streams[parcel.task.id] = task.remote(self._job, parcel, data)

    def keep_data(self, name: str, piece: bytes) -> None:
        self._data.setdefault(name, []).append(ray.put(piece))

    def read(self, timeout_s: float) -> list[tuple[str, Said]]:
        names = {id(stream): name for name, stream in self._streams.items()}
        streams: Sequence[Any] = list(self._streams.values())
        if not streams:
            return []
        # Waits for one, then takes all there are, so that a busy stream does not hold up the others.
        if not ray.wait(streams, num_returns=1, timeout=timeout_s)[0]:
            return []
        ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        said = [(names[id(stream)], _read(stream)) for stream in ready]
        for name, message in said:
            if isinstance(message, Lacks | Unfit | Finished | Failed):
                del self._streams[name]
        return said

    def cancel(self, *, force: bool) -> None:
        for stream in self._streams.values():
            ray.cancel(stream, force=force)

    def drop(self, name: str) -> None:
        ray.cancel(self._streams.pop(name), force=True)


class RelayedStreams:
    """For a process outside of the cluster: an actor within it has the streams.

    Args:
        job: Of all exports.
    """

    def __init__(self, job: Job) -> None:
        self._actor = ray.remote(num_cpus=0)(DirectStreams).remote(job)

    def start(self, parcel: Parcel, demand: Demand) -> None:
        ray.get(self._actor.start.remote(parcel, demand))

    def keep_data(self, name: str, piece: bytes) -> None:
        ray.get(self._actor.keep_data.remote(name, piece))

    def read(self, timeout_s: float) -> list[tuple[str, Said]]:
        said: list[tuple[str, Said]] = ray.get(self._actor.read.remote(timeout_s))
        return said

    def cancel(self, *, force: bool) -> None:
        ray.get(self._actor.cancel.remote(force=force))

    def drop(self, name: str) -> None:
        ray.get(self._actor.drop.remote(name))


def _read(stream: Any) -> Said:
    try:
        message: Said = ray.get(next(stream))
        return message
    except (StopIteration, ObjectRefStreamEndOfStreamError):
        return Failed(Ending.lost, "its Ray task ended without a word")
    except RayError as error:
        ending = Ending.out_of_memory if isinstance(error, OutOfMemoryError) else Ending.lost
        return Failed(ending, explain_error(error))


def explain_error(error: BaseException) -> str:
    """What Ray says, in one line."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    text = f"{type(cause).__name__}: {cause}" if cause is not None else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line if len(line) <= _MAX_EVIDENCE else f"{line[:_MAX_EVIDENCE]}..."
