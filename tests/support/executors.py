"""The executors that the suites of executors run on, and what tells whether one has left anything running."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from ray_cluster import RayCluster, why_no_namespaces

from pipeline.executor import Executor
from pipeline.local_executor import LocalExecutor
from pipeline.on_ray.messages import Options
from pipeline.ray_executor import RayExecutor

# What makes an executor of so many workers, with a time-out in seconds.
Maker = Callable[[int, float], Executor]

_BUDGET_BYTES = 8 << 30
# Inherited by all that an executor starts, wherever it hangs in the process tree.
_MARK = ("MODELPRESS_TEST_RUN", str(os.getpid()))
os.environ[_MARK[0]] = _MARK[1]


def has_ray() -> bool:
    try:
        metadata.version("ray")
    except metadata.PackageNotFoundError:
        return False
    return True


needs_ray = pytest.mark.skipif(not has_ray(), reason="Ray is not installed: pip install -e '.[ray]'")


def make_local(workers: int, timeout_s: float) -> Executor:
    return LocalExecutor(workers, timeout_s, _BUDGET_BYTES)


def make_ray(workers: int, timeout_s: float) -> Executor:
    """On a cluster of its own, which ends with it."""
    return RayExecutor(Options(None, workers, timeout_s, _BUDGET_BYTES))


# "apart" is a cluster whose only node sees neither the exports' directories nor the models' code.
EXECUTORS = [
    pytest.param("local", id="local"),
    pytest.param("ray", id="ray", marks=needs_ray),
    pytest.param("apart", id="ray-apart", marks=needs_ray),
]


@contextmanager
def open_maker(name: str, folder: Path) -> Iterator[Maker]:
    """What makes executors of a kind; `folder` is one that a node which is apart does not see."""
    if name != "apart":
        yield make_local if name == "local" else make_ray
        return
    if reason := why_no_namespaces():
        pytest.skip(reason)
    cluster = RayCluster()
    tests = Path(__file__).resolve().parent.parent
    with pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.secrets.items():
            patch.setenv(key, value)
        try:
            cluster.add_node(hidden=[tests, folder])
            yield lambda workers, timeout_s: RayExecutor(Options(cluster.address, workers, timeout_s, None))
        finally:
            cluster.close()


def find_sleepers(seconds: str) -> list[int]:
    """Children that the models left, wherever in the process tree they hang by now."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", seconds] and process.status() != psutil.STATUS_ZOMBIE
    ]


def find_workers() -> list[psutil.Process]:
    """Forks of a fork server, and what they started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or process.environ().get(_MARK[0]) != _MARK[1]:
                continue
            if any(_is_of_server(other) for other in process.parents()) or (
                _is_of_server(process) and process.ppid() == 1
            ):
                found.append(process)
    return found


def _is_of_server(process: psutil.Process) -> bool:
    """A fork server, or a fork of one, which goes by the same command line."""
    with suppress(psutil.Error):
        return any("multiprocessing.forkserver" in argument for argument in process.cmdline())
    return False
