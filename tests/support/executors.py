"""The executors that the suites of executors run on, and what tells whether one has left anything running."""

import os
from collections.abc import Callable

import psutil

from pipeline.executor import Executor
from pipeline.local_executor import LocalExecutor


def make_local(workers: int, timeout_s: float) -> Executor:
    return LocalExecutor(workers, timeout_s, budget_bytes=8 << 30)


# An executor is added here, by what makes one of `workers` workers with a time-out in seconds.
EXECUTORS: list[Callable[[int, float], Executor]] = [make_local]


def find_sleepers(seconds: str) -> list[int]:
    """Children that the models left, wherever in the process tree they hang by now."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", seconds] and process.status() != psutil.STATUS_ZOMBIE
    ]


def find_grandchildren() -> list[psutil.Process]:
    """Workers are not our children: a fork server is, and they are its."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.ppid() != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
    ]
