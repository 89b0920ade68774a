"""A Ray cluster: found or started, looked over, and left."""

import logging
import socket
import time
from pathlib import Path

import ray
from ray._private import state
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    RayError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from exporter.errors import ClusterError, ConfigError
from exporter.provenance import read_commit
from pipeline.local_executor import count_cores
from pipeline.on_ray.demand import Node
from pipeline.on_ray.messages import Job, Options
from pipeline.on_ray.project import stage_project
from pipeline.on_ray.round import Streams
from pipeline.on_ray.streams import DirectStreams, RelayedStreams, explain_error
from pipeline.on_ray.supervisor import describe_versions, inspect_node

__all__ = ["Cluster"]

_CLIENT = "ray://"
_KNOCK_S = 10.0
# A node may have to make Ray's runtime environment first.
_INSPECTION_S = 600.0
# The least that Ray takes is 75 MiB. On this machine nothing but messages passes through it.
_OBJECT_STORE_BYTES = 80 << 20
_SETTLING_S = 5.0
_GONE = (TaskUnschedulableError, NodeDiedError, WorkerCrashedError, LocalRayletDiedError)


class Cluster:
    """A connection to Ray; there is one in a process.

    Args:
        options: With the address.
        folder: For the project's copy and, where the cluster is our own, for Ray's sockets and logs.

    Raises:
        ClusterError: There is no cluster at the address, or a node of it must not run exports.
        ConfigError: The project is too large to be sent.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self.job = self._connect(folder)
        self._inspect_nodes()

    def _connect(self, folder: Path) -> Job:
        address = self._options.address
        if address is None:
            ray.init(
                "local",
                num_cpus=count_cores(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                runtime_env=self._options.runtime_env or None,
                _memory=self._options.budget_bytes,
                _temp_dir=str(folder),
            )
            return self._make_job(str(Path.cwd()), self._options.path, is_here=True)
        knock(address)
        stage = folder / "project"
        stage.mkdir()
        staged = stage_project(stage, Path.cwd(), self._options.path, self._options.outputs)
        try:
            ray.init(
                address,
                runtime_env={**self._options.runtime_env, "working_dir": str(stage)},
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise ClusterError(f"executor.address: {address}: {explain_error(error)}") from error
        return self._make_job(staged.directory, staged.path, is_here=False)

    def _make_job(self, directory: str, path: tuple[str, ...], *, is_here: bool) -> Job:
        return Job(
            timeout_s=self._options.timeout_s,
            versions=describe_versions(),
            commit=read_commit(),
            directory=directory,
            path=path,
            is_here=is_here,
        )

    def open_streams(self) -> Streams:
        """Where exports can be started."""
        is_outside = (self._options.address or "").startswith(_CLIENT)
        return RelayedStreams(self.job) if is_outside else DirectStreams(self.job)

    def list_nodes(self) -> list[Node]:
        """The nodes that run tasks; heads often do not."""
        nodes = [_describe(node) for node in ray.nodes() if node["Alive"]]
        return [node for node in nodes if node.num_cpus]

    def find_freest_node(self) -> Node | None:
        """The node with the most free memory, as it is free now that none of our exports runs; None without a node."""
        # Only a process within the cluster can see what of each node is free.
        read_free = ray.remote(num_cpus=0)(_read_free)
        deadline = time.monotonic() + _SETTLING_S
        while True:
            nodes = self.list_nodes()
            found = ray.get(read_free.remote())
            # Ray hears of the end of a task a little later than we do.
            free = [_reduce(node, found.get(node.id, {})) for node in nodes]
            if set(free) & set(nodes) or not nodes or time.monotonic() > deadline:
                return max(free, key=lambda node: (node.memory_bytes, node.num_cpus), default=None)
            time.sleep(0.1)

    def _inspect_nodes(self) -> None:
        """See that each node has what the batch's machine has. The process that tells us is used for exports later."""
        inspect = ray.remote(num_cpus=0, max_retries=0)(inspect_node)
        nodes = self.list_nodes()
        if not nodes:
            raise ClusterError(f"executor.address: {self._options.address}: no node of this cluster runs tasks")
        places = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes]
        answers = [inspect.options(scheduling_strategy=place).remote(self.job) for place in places]
        deadline = time.monotonic() + _INSPECTION_S
        problems = []
        for node, answer in zip(nodes, answers, strict=True):
            try:
                reason = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
            except _GONE:
                # It went as we looked; Ray gives it no exports either.
                continue
            except RayError as error:
                reason = explain_error(error)
            if reason:
                problems.append(f"executor: node {node.name} cannot run exports: {reason}")
        if problems:
            raise ClusterError("\n".join(problems))

    def close(self) -> None:
        ray.shutdown()


def knock(address: str) -> None:
    """See that somebody answers at an address, which Ray itself tries for minutes.

    Raises:
        ClusterError: Nobody does.
        ConfigError: That is no address.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"executor.address: {address!r} is no address; write auto, HOST:PORT or ray://HOST:PORT, or leave it out"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"executor.address: nobody answers at {address}: {error}") from error


def _describe(node: dict[str, object]) -> Node:
    resources = node["Resources"]
    assert isinstance(resources, dict)
    return Node(
        id=str(node["NodeID"]),
        name=f"{node['NodeManagerHostname']}, {node['NodeManagerAddress']}",
        num_cpus=int(resources.get("CPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
        num_gpus=int(resources.get("GPU", 0)),
    )


def _read_free() -> dict[str, dict[str, float]]:
    """What is free of each node, by the node's id; runs on one of them."""
    found: dict[str, dict[str, float]] = state.available_resources_per_node()
    return found


def _reduce(node: Node, free: dict[str, float]) -> Node:
    return Node(node.id, node.name, int(free.get("CPU", 0)), int(free.get("memory", 0)), int(free.get("GPU", 0)))
