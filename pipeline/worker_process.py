"""One worker as its executor sees it: a process that is watched, ended, and nothing is left of."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess

import psutil

from exporter.directory import ExportDirectory
from exporter.memory import UsageReader
from exporter.worker import DIRECTORY_VARIABLE
from pipeline.executor import Ended, Ending, Task
from pipeline.fork_server import ForkServer
from pipeline.memory_kills import KillCounts
from pipeline.worker_log import WorkerLog

__all__ = ["STATUS_LOST", "WorkerProcess", "kill_marked"]

# multiprocessing's own for a process whose server is gone.
STATUS_LOST = 255
# From SIGTERM to SIGKILL.
GRACE_S = 2.0
# From SIGKILL to the end, and of those that are left when others have taken that time.
_KILL_S = 5.0
_LAST_KILL_S = 0.2
_STACKS_S = 0.1
_CLOSING_S = 0.2
_POLL_S = 0.02


class WorkerProcess:
    """Runs one task in a fresh process.

    Args:
        server: To fork it from.
        target: What runs there, with the directory's path, the number of threads and a writable connection for
            what is printed.
        task: Its directory holds spec.json.
        threads: Of torch and ONNX Runtime.

    Raises:
        OSError: The server could not fork it.
        EOFError: Likewise.
        RuntimeError: The machine allows no more threads.
    """

    def __init__(self, server: ForkServer, target: Callable[..., None], task: Task, threads: int) -> None:
        self.task = task
        self.was_alone = True
        self._directory = str(task.directory.resolve())
        self._server = server
        self._kills = KillCounts.read()
        self._log = WorkerLog(ExportDirectory(task.directory).log)
        try:
            self._process: BaseProcess = server.start_process(
                target, (self._directory, threads, self._log.writer), name=task.id, is_cold=task.on_gpu
            )
        except BaseException:
            self._log.end(is_over=False)
            raise
        # None for an interpreter of its own.
        self._server_pid = None if task.on_gpu else server.pid
        # A server that has just begun forks when it is warm; that is no time of this export's.
        self._started = time.monotonic()
        try:
            self._log.begin()
        except RuntimeError:
            self._process.kill()
            raise
        self._usage = self._open_usage()
        self._peak_rss_bytes = 0

    def _open_usage(self) -> UsageReader | None:
        try:
            return UsageReader(self._process.pid)
        except OSError:
            # It has ended already.
            return None

    @property
    def sentinel(self) -> int:
        """Becomes readable when the process has ended."""
        return self._process.sentinel

    def read_rss_bytes(self) -> int | None:
        """Resident memory now; None where it cannot be read."""
        usage = self._usage.read() if self._usage is not None else None
        if usage is None:
            return None
        self._peak_rss_bytes = max(self._peak_rss_bytes, usage.rss_bytes)
        return usage.rss_bytes

    def find_end(self, timeout_s: float) -> Ended | None:
        """How the worker has ended, or is being ended because its time is up; None if it is at work."""
        duration_s = time.monotonic() - self._started
        code = self._process.exitcode
        if code is None and duration_s < timeout_s:
            return None
        if code is None:
            # Has every thread's stack written to the log, also where C code holds the interpreter.
            self.signal_group(signal.SIGUSR1)
            time.sleep(_STACKS_S)
            self.signal_group(signal.SIGTERM)
            return self._describe(Ending.timed_out, round(timeout_s), duration_s)
        if code == STATUS_LOST and self._lost_its_server():
            return self._describe(Ending.lost, code, duration_s, "the server that it was forked from died")
        if code == -signal.SIGKILL and (rise := self._kills.explain_rise(KillCounts.read())):
            seen = f"; its resident memory was {self._peak_rss_bytes / 2**20:,.0f} MiB when last seen"
            return self._describe(Ending.out_of_memory, signal.SIGKILL, duration_s, rise + seen)
        return self._describe(Ending.signalled if code < 0 else Ending.exited, abs(code), duration_s)

    def _lost_its_server(self) -> bool:
        """Whether the server that this was forked from is gone, by now or in a moment; another may run already."""
        if self._server_pid is None:
            return False
        # Its connections close a little before it has ended.
        deadline = time.monotonic() + _CLOSING_S
        while self._server.is_alive(self._server_pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _describe(self, ending: Ending, code: int, duration_s: float, evidence: str = "") -> Ended:
        return Ended(self.task, ending, code, duration_s, evidence, self.was_alone)

    def signal_group(self, number: int) -> None:
        """Signal the worker and what it started; it leads a process group of its own."""
        if self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                try:
                    os.killpg(self._process.pid, number)
                except ProcessLookupError:
                    # It has not come so far as to lead a group, or is gone.
                    os.kill(self._process.pid, number)

    def end(self, grace_until: float) -> None:
        """Leave nothing of the worker running: not the process, not what it started, in whatever session that is.

        Args:
            grace_until: When to kill what has not ended by itself, as of `time.monotonic()`. For workers that are ended
                one after the other, the same: a few seconds after it all of that is over.
        """
        while self._process.exitcode is None and time.monotonic() < grace_until:
            self._process.join(_POLL_S)
        self.signal_group(signal.SIGKILL)
        # What the kernel holds, on a disk that hangs for example, must not hold up the batch, one or many.
        self._process.join(max(_LAST_KILL_S, grace_until + _KILL_S - time.monotonic()))
        is_over = self._process.exitcode is not None
        if is_over:
            self._process.close()
        if self._usage is not None:
            self._usage.close()
        if self._server_pid is not None and self._server.is_alive(self._server_pid):
            self._server.kill_orphans(self._is_anothers)
        else:
            kill_marked(self._directory)
        self._log.end(is_over=is_over)

    def _is_anothers(self, pid: int) -> bool:
        """Whether a process was started by another worker, which may need it yet."""
        with suppress(psutil.Error):
            return psutil.Process(pid).environ().get(DIRECTORY_VARIABLE, self._directory) != self._directory
        return False


def kill_marked(directory: str) -> None:
    """Kill what workers started and let go of: a child in a session of its own, a child of a child.

    For want of a server that knows its children; takes a look at every process of the machine.

    Args:
        directory: Of the worker, or of the run, for what all of its workers started.
    """
    for other in psutil.process_iter():
        with suppress(psutil.Error):
            marked = other.environ().get(DIRECTORY_VARIABLE, "")
            if marked == directory or marked.startswith(f"{directory}{os.sep}"):
                other.kill()
