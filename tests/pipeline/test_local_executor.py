"""What the local executor does while its fork server warms up, and at a stop; how workers end is `test_executor`'s."""

import threading
import time

import idle_workers
import psutil

from exporter.readiness import Readiness
from pipeline.executor import Notice, Pulse, Task
from pipeline.fork_server import ForkServer
from pipeline.local_executor import LocalExecutor


class WarmingServer(ForkServer):
    """One that becomes fit, or not, when the test says so."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self.readiness = readiness
        self.is_over = threading.Event()
        self.is_killed = False

    def begin(self) -> None:
        pass

    def make_fit(self) -> Readiness:
        self.is_over.wait()
        return self.readiness

    def kill(self) -> None:
        self.is_killed = True
        self.is_over.set()


def begin(server: ForkServer, tmp_path):
    return LocalExecutor(1, 60.0, 1 << 30, server).run([Task("m", tmp_path)])


def test_a_batch_can_be_stopped_while_its_server_warms_up(tmp_path):
    server = WarmingServer(Readiness(is_imported=True, is_warm=True))
    events = begin(server, tmp_path)
    assert next(events) == Pulse({})
    events.close()
    assert server.is_killed


def test_threads_in_the_server_are_told_of(tmp_path):
    server = WarmingServer(Readiness(is_imported=True, is_warm=True, num_threads=3))
    server.is_over.set()
    events = begin(server, tmp_path)
    notices = [event.text for event in iter(events.__next__, Pulse({})) if isinstance(event, Notice)]
    events.close()
    assert len(notices) == 1
    assert "runs 3 threads, and a fork has one" in notices[0]


def test_a_preload_that_failed_is_told_of(tmp_path):
    server = WarmingServer(Readiness(is_imported=True, is_warm=True, preload_problems=["a: b", "c: d"]))
    server.is_over.set()
    events = begin(server, tmp_path)
    assert next(event for event in events if isinstance(event, Notice)) == Notice("not imported beforehand: a: b; c: d")
    events.close()


def test_workers_that_ignore_sigterm_share_one_period_of_grace(tmp_path):
    # With one each, of two seconds, a stop of so many takes longer than the 15 s that it may.
    directories = [tmp_path / str(number) for number in range(9)]
    for directory in directories:
        directory.mkdir()
    server = ForkServer("idle_workers")
    server.end()
    executor = LocalExecutor(len(directories), 300.0, 1 << 30, server, idle_workers.ignore_sigterm)
    events = executor.run([Task(directory.name, directory) for directory in directories])
    try:
        deadline = time.monotonic() + 60
        while not all((directory / idle_workers.AT_WORK).exists() for directory in directories):
            assert time.monotonic() < deadline
            next(events)
        workers = [int((directory / idle_workers.AT_WORK).read_text()) for directory in directories]
        begin = time.monotonic()
        events.close()
        assert time.monotonic() - begin < 15
        assert not any(map(psutil.pid_exists, workers))
    finally:
        executor.close()
