"""Workers on this machine: one fresh process for each export, forked from a server that has torch imported.

The standard library's fork server does the forking. A process pool would lose all its tasks with one dead worker
(concurrent.futures) or keep the workers between tasks (pebble), where memory of the last export stays pinned.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from exporter.worker import DIRECTORY_VARIABLE, run_worker
from pipeline.executor import Ended, Ending, Event, Started, Task

__all__ = ["LocalExecutor", "count_cores"]

# How often the caller gets a turn while nothing happens.
_TICK_S = 0.1
# From SIGTERM to SIGKILL.
_GRACE_S = 2.0


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass
class _Running:
    task: Task
    process: ForkServerProcess
    started: float


class LocalExecutor:
    """Runs up to `workers` exports at a time.

    Args:
        workers: Processes at a time; the machine's cores are divided among them as torch threads.
        timeout_s: A worker that takes longer is ended.
    """

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._workers = workers
        self._timeout_s = timeout_s

    def run(self, tasks: Sequence[Task]) -> Generator[Event | None]:
        workers = min(self._workers, len(tasks))
        threads = max(1, count_cores() // max(1, workers))
        context = _start_fork_server(is_warm=len(tasks) > workers)
        waiting = list(reversed(tasks))
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_start(context, waiting.pop(), threads))
                    yield Started(running[-1].task)
                wait([item.process.sentinel for item in running], timeout=_TICK_S)
                for item in list(running):
                    ended = self._look_after(item)
                    if ended is not None:
                        running.remove(item)
                        _end(item)
                        yield ended
                yield None
        finally:
            for item in running:
                _signal_group(item.process, signal.SIGTERM)
            for item in running:
                _end(item)
            _stop_fork_server()

    def _look_after(self, item: _Running) -> Ended | None:
        """The end of a worker, if it has ended or its time is up."""
        duration_s = time.monotonic() - item.started
        code = item.process.exitcode
        if code is None and duration_s < self._timeout_s:
            return None
        if code is None:
            # Has every thread's stack written to the log, also where C code holds the interpreter.
            _signal_group(item.process, signal.SIGUSR1)
            time.sleep(_TICK_S)
            _signal_group(item.process, signal.SIGTERM)
            return Ended(item.task, Ending.timed_out, round(self._timeout_s), duration_s)
        ending = Ending.signalled if code < 0 else Ending.exited
        return Ended(item.task, ending, abs(code), duration_s)


def _start_fork_server(*, is_warm: bool) -> multiprocessing.context.ForkServerContext:
    """Start the server that workers are forked from; it imports in the background while we go on.

    Args:
        is_warm: Have it do a tiny export first. That takes as long as the first export of a cold process, so it
            pays from the second export of a worker on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["exporter.warm_template" if is_warm else "exporter.template"])
    with _worker_environment():
        forkserver.ensure_running()
    return context


def _stop_fork_server() -> None:
    """End the server now; by itself it would first tear down all that it has imported, after we are gone."""
    # multiprocessing has no public way to do this; Any, because its types have no private names either.
    server: Any = forkserver._forkserver  # type: ignore[attr-defined,unused-ignore]  # noqa: SLF001
    if server._forkserver_pid is not None:  # noqa: SLF001
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # noqa: SLF001
        server._stop()  # noqa: SLF001


@contextmanager
def _worker_environment() -> Iterator[None]:
    """What has to be set before the server's interpreter starts.

    One OpenMP thread: a fork after a parallel operator hangs in its first one. GPUs are counted by NVML: a fork after
    CUDA has started, which is torch's way of counting, cannot use it. UTF-8 whatever the locale: models print, and so
    does torch.
    """
    wanted = {
        "OMP_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        # Workers end at once; multiprocessing's tracker frees what they leave, and need not say so.
        "PYTHONWARNINGS": ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"))),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(context: multiprocessing.context.ForkServerContext, task: Task, threads: int) -> _Running:
    # multiprocessing gives the child our sys.path, the user's folder included.
    process = context.Process(target=run_worker, args=(str(task.directory.resolve()), threads), name=task.id)
    process.start()
    return _Running(task, process, time.monotonic())


def _signal_group(process: ForkServerProcess, number: int) -> None:
    """Signal a worker and what it started; the worker leads a process group of its own."""
    if process.pid is None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end(item: _Running) -> None:
    """Leave nothing of a worker running: not the process, not what it started, in whatever session that is."""
    process = item.process
    if process.exitcode is None:
        process.join(_GRACE_S)
    _signal_group(process, signal.SIGKILL)
    process.join()
    process.close()
    directory = str(item.task.directory.resolve())
    for other in psutil.process_iter():
        with suppress(psutil.Error):
            if other.environ().get(DIRECTORY_VARIABLE) == directory:
                other.kill()
