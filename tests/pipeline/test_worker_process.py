"""How a worker is ended where that is not easy; what becomes of its export is `test_executor`'s."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import idle_workers
import psutil
import pytest

from pipeline.executor import Task
from pipeline.fork_server import ForkServer
from pipeline.worker_process import WorkerProcess

# A batch that is stopped is over by then.
STOP_S = 15.0


@pytest.fixture
def server() -> Iterator[ForkServer]:
    """One that imports no torch."""
    server = ForkServer("idle_workers")
    server.end()
    yield server
    server.end()


def start(server: ForkServer, target: Callable[..., None], directory: Path) -> tuple[WorkerProcess, psutil.Process]:
    """A worker that is at work, and its process."""
    worker = WorkerProcess(server, target, Task(directory.name, directory), 1)
    at_work = directory / idle_workers.AT_WORK
    deadline = time.monotonic() + 60
    while not at_work.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return worker, psutil.Process(int(at_work.read_text()))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_leads_no_group_yet_is_ended_and_its_server_lives(server, tmp_path, number):
    worker, process = start(server, idle_workers.lead_no_group, tmp_path)
    assert os.getpgid(process.pid) != process.pid
    worker.signal_group(number)
    try:
        process.wait(10)
        assert server.is_alive(server.pid)
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        worker.end(time.monotonic())


def test_workers_whose_end_does_not_come_hold_nobody_up(server, tmp_path):
    # As those that the kernel holds, on a disk that hangs: a server that is stopped tells of no end.
    started = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        started.append(start(server, idle_workers.ignore_sigterm, tmp_path / str(number)))
    os.kill(server.pid, signal.SIGSTOP)
    waker = threading.Timer(STOP_S, os.kill, [server.pid, signal.SIGCONT])
    waker.start()
    try:
        grace_until = time.monotonic()
        for worker, _ in started:
            worker.end(grace_until)
        assert waker.is_alive(), "the ends were waited for"
        assert all(is_gone(process) for _, process in started)
    finally:
        waker.cancel()
        os.kill(server.pid, signal.SIGCONT)
