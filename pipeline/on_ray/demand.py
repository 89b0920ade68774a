"""What an export asks of a node, and whether any node could ever give it.

Ray itself waits for ever, and without a word, for a node that is large enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.errors import ConfigError
from pipeline.executor import Task

__all__ = ["Demand", "Node", "choose_threads", "find_demand", "require_room"]

# Besides the export's own memory: Ray's process that watches over it, and the warm server that it is forked from.
_WATCH_BYTES = 512 << 20
_MAX_PROBLEMS = 5
_MIB = 1 << 20


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, and what of it there is for tasks."""

    id: str
    name: str
    num_cpus: int
    memory_bytes: int
    num_gpus: int


@dataclass(frozen=True)
class Demand:
    """What Ray is to keep free for one export."""

    num_cpus: int
    memory_bytes: int
    num_gpus: int = 0

    def fits(self, node: Node) -> bool:
        return (
            self.num_cpus <= node.num_cpus and self.memory_bytes <= node.memory_bytes and self.num_gpus <= node.num_gpus
        )

    def __str__(self) -> str:
        return _describe(self.num_cpus, self.memory_bytes, self.num_gpus)


def choose_threads(nodes: Sequence[Node], num_workers: int) -> int:
    """The most threads with which so many exports still find room beside each other; at least 1."""
    most = max((node.num_cpus for node in nodes), default=1)
    fitting = (n for n in range(most, 1, -1) if sum(node.num_cpus // n for node in nodes) >= num_workers)
    return next(fitting, 1)


def find_demand(task: Task, threads: int, nodes: Sequence[Node], budget_bytes: int | None) -> Demand:
    """What to ask Ray for.

    Args:
        task: Its memory is an expectation.
        threads: Each has a core.
        nodes: Of the cluster.
        budget_bytes: What exports on one node may be expected to need together; one that is over it gets all the
            memory of the largest node. None: there is no budget, and one that is too large for every node finds none.
    """
    wanted = task.memory_bytes + _WATCH_BYTES
    largest = max((node.memory_bytes for node in nodes), default=0)
    if budget_bytes is not None and wanted > min(budget_bytes, largest):
        wanted = largest
    return Demand(threads, wanted, num_gpus=int(task.on_gpu))


def require_room(demands: Mapping[str, Demand], nodes: Sequence[Node]) -> None:
    """See that each export, by its id, finds a node that is large enough.

    Raises:
        ConfigError: One does not; every such export has a line.
    """
    problems = [f"{name} needs {demand}" for name, demand in demands.items() if not any(map(demand.fits, nodes))]
    if not problems:
        return
    largest = max(nodes, key=lambda node: (node.num_gpus, node.memory_bytes, node.num_cpus), default=None)
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"and {len(problems) - _MAX_PROBLEMS} more"]
    room = f"has {_describe(largest.num_cpus, largest.memory_bytes, largest.num_gpus)}" if largest else "is not there"
    name = f" ({largest.name})" if largest else ""
    raise ConfigError(
        "\n".join(problems)
        + f"\nexecutor: no node of the Ray cluster can ever hold that; the largest one{name} {room}"
        + "\nif the memory is guessed too high, set executor.memory_budget: an export over it gets all of a node's"
    )


def whole(node: Node, least: Demand) -> Demand:
    """All that a node has free, and no less than an export needs."""
    return replace(
        least,
        num_cpus=max(node.num_cpus, least.num_cpus),
        memory_bytes=max(node.memory_bytes, least.memory_bytes),
    )


def _describe(num_cpus: int, memory_bytes: int, num_gpus: int) -> str:
    parts = [f"{num_cpus} core{'s' if num_cpus != 1 else ''}", f"{memory_bytes / _MIB:,.0f} MiB of memory"]
    return " and ".join([", ".join(parts), f"{num_gpus} GPU"] if num_gpus else parts)
