"""Workers on this machine: one fresh process for each export, forked from a server that has torch imported."""

import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as await_futures
from dataclasses import replace
from multiprocessing.connection import wait

from exporter.errors import WorkerError
from exporter.readiness import Readiness
from exporter.storage_faults import describe_fault
from exporter.worker import run_worker
from pipeline.admission import choose_task
from pipeline.executor import Ended, Ending, Event, Notice, Pulse, Started, Task
from pipeline.fork_server import ForkServer
from pipeline.worker_process import GRACE_S, WorkerProcess

__all__ = ["LocalExecutor", "count_cores"]

# How often the caller gets a turn while nothing happens.
_TICK_S = 0.1
# A server that dies again and again, between the starts of workers, dies of something that stays.
_MAX_SERVER_DEATHS = 3


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


class LocalExecutor:
    """Runs up to `workers` exports at a time.

    Args:
        workers: Processes at a time; the machine's cores are divided among them as torch threads.
        timeout_s: A worker that takes longer is ended.
        budget_bytes: The memory that all workers together may be expected to need.
        server: To fork workers from.
        target: What a worker runs; see `WorkerProcess`.
        num_cores: What the workers share; None is all that this process may use.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        budget_bytes: int,
        server: ForkServer | None = None,
        target: Callable[..., None] = run_worker,
        num_cores: int | None = None,
    ) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._budget_bytes = budget_bytes
        self._server = server or ForkServer()
        self._target = target
        self._num_cores = num_cores or count_cores()
        self._running: list[WorkerProcess] = []
        self._server_deaths = 0
        self._has_server = False

    def prepare(self) -> None:
        try:
            self._server.begin()
        except OSError as error:
            raise WorkerError(f"no worker can run: no process could be started: {describe_fault(error)}") from error

    def require(self, tasks: Sequence[Task]) -> None:
        """Nothing is too large: what is over the budget runs alone."""

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        workers = 1 if alone else max(1, min(self._workers, len(tasks)))
        threads = max(1, self._num_cores // workers)
        waiting = list(tasks)
        try:
            yield from self._await_server(waiting)
            while waiting or self._running:
                # Workers are started before the caller hears of those that ended: it has work to do on these.
                ended = self._reap()
                started = self._start_due(waiting, workers, threads)
                yield from ended
                yield from started
                yield Pulse(self._read_memory())
                if self._running:
                    wait([worker.sentinel for worker in self._running], timeout=_TICK_S)
        finally:
            for worker in self._running:
                worker.signal_group(signal.SIGTERM)
            grace_until = time.monotonic() + GRACE_S
            while self._running:
                self._running.pop().end(grace_until)

    def _await_server(self, tasks: Sequence[Task]) -> Generator[Event]:
        forked = [task for task in tasks if not task.on_gpu]
        if not forked or self._has_server:
            return
        self._server.preload(sorted({name for task in forked for name in task.preloads}))
        self.prepare()
        readiness = yield from self._make_fit()
        if not readiness.is_imported:
            raise WorkerError(f"no worker can run: {readiness.problem}", readiness.output)
        self._has_server = True
        if readiness.problem:
            yield Notice(f"workers are slower than they could be: {readiness.problem}")
        if readiness.preload_problems:
            yield Notice(f"not imported beforehand: {'; '.join(readiness.preload_problems)}")
        if (readiness.num_threads or 1) > 1:
            yield Notice(
                f"the process that workers are forked from runs {readiness.num_threads} threads, and a fork has one: "
                "a worker that needs another waits until executor.timeout_s is over"
            )

    def _make_fit(self) -> Generator[Event, None, Readiness]:
        """Wait for the server, with a pulse several times a second: the caller may want to stop."""
        with ThreadPoolExecutor(1, "server") as pool:
            answer = pool.submit(self._server.make_fit)
            try:
                while not await_futures([answer], timeout=_TICK_S).done:
                    yield Pulse({})
            finally:
                # It would start another server in the place of one that died.
                while not answer.done():
                    self._server.kill()
                    await_futures([answer], timeout=_TICK_S)
            return answer.result()

    def close(self, *, at_once: bool = False) -> None:
        if at_once:
            for worker in list(self._running):
                worker.signal_group(signal.SIGKILL)
            self._server.kill()
        else:
            self._server.end()

    def _start_due(self, waiting: list[Task], workers: int, threads: int) -> list[Event]:
        """Start what there is room for; a task that no server can be had for has ended before it began."""
        events: list[Event] = []
        while True:
            running = [worker.task for worker in self._running]
            index = choose_task(waiting, running, workers, self._budget_bytes)
            if index is None:
                return events
            task = waiting.pop(index)
            events.append(Started(task))
            try:
                worker = WorkerProcess(self._server, self._target, task, threads)
            except (OSError, EOFError, RuntimeError) as error:
                events.append(Ended(task, Ending.lost, 0, 0.0, f"no worker could be forked: {error!r}"))
                self._server_deaths += 1
                if self._server_deaths > _MAX_SERVER_DEATHS:
                    # Nothing more will start.
                    why = f"the fork server died {self._server_deaths} times: {error!r}"
                    lost = Ended(task, Ending.lost, 0, 0.0, why)
                    events += [event for left in waiting for event in (Started(left), replace(lost, task=left))]
                    waiting.clear()
                continue
            self._running.append(worker)
            if len(self._running) > 1:
                for beside in self._running:
                    beside.was_alone = False

    def _reap(self) -> list[Ended]:
        events = []
        # Of those whose time is up.
        grace_until = time.monotonic() + GRACE_S
        for worker in list(self._running):
            ended = worker.find_end(self._timeout_s)
            if ended is not None:
                self._running.remove(worker)
                worker.end(grace_until)
                events.append(ended)
        return events

    def _read_memory(self) -> dict[str, int]:
        read = {worker.task.id: worker.read_rss_bytes() for worker in self._running}
        return {name: rss_bytes for name, rss_bytes in read.items() if rss_bytes is not None}
