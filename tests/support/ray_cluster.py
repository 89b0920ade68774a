"""A real Ray cluster on this machine, one process a node, some of which see less of the disk than we do."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

__all__ = ["RayCluster", "RayNode", "why_no_namespaces"]

_START_S = 90


def why_no_namespaces() -> str:
    """Why folders cannot be hidden from a process here; empty if they can."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "hiding folders from a process needs unshare --mount (root)"


class RayNode:
    """`ray start --block`, and what it starts."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], hidden: Sequence[Path] = ()) -> None:
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        ray += ["--include-log-monitor=false", f"--object-store-memory={80 << 20}", *arguments]
        if hidden:
            mounts = "".join(f"mount -t tmpfs none '{path}' && " for path in hidden)
            ray = ["unshare", "--mount", "sh", "-c", f'{mounts} exec "$@"', "sh", *ray]
        self.log = Path(tempfile.mkstemp(prefix="ray-node-")[1])
        with self.log.open("wb") as log:
            # A folder that all have; it is no project.
            self.process = subprocess.Popen(
                ray, env=environment, cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """As a machine goes that loses its power: nothing has a chance to say goodbye."""
        if self.process.poll() is None:
            own = psutil.Process(self.process.pid)
            for process in (own, *own.children(recursive=True)):
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
        self.process.wait()
        self.log.unlink(missing_ok=True)


class RayCluster:
    """A head that runs no tasks, and nodes that do."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        port, client_port = _find_free_ports(2)
        self.address = f"127.0.0.1:{port}"
        # For who is no part of the cluster.
        self.client_address = f"ray://127.0.0.1:{client_port}"
        self.secrets = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._environment = {**os.environ, **self.secrets, "RAY_TMPDIR": str(self.folder)}
        self.nodes: list[RayNode] = []
        self._start(
            [
                "--head",
                f"--port={port}",
                f"--ray-client-server-port={client_port}",
                "--num-cpus=0",
                "--include-dashboard=false",
                "--node-ip-address=127.0.0.1",
                f"--temp-dir={self.folder}",
            ]
        )

    def add_node(
        self, *, num_cpus: int = 2, memory_bytes: int = 8 << 30, hidden: Sequence[Path] = (), **environment: str
    ) -> RayNode:
        arguments = [f"--address={self.address}", f"--num-cpus={num_cpus}", f"--memory={memory_bytes}"]
        return self._start(arguments, hidden, environment)

    def _start(
        self, arguments: list[str], hidden: Sequence[Path] = (), environment: Mapping[str, str] | None = None
    ) -> RayNode:
        node = RayNode(arguments, {**self._environment, **(environment or {})}, hidden)
        self.nodes.append(node)
        deadline = time.monotonic() + _START_S
        while "Ray runtime started" not in node.log.read_text():
            assert node.process.poll() is None, node.log.read_text()
            assert time.monotonic() < deadline, node.log.read_text()
            time.sleep(0.1)
        return node

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _find_free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
