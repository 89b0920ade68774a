"""The process that workers are forked from, with torch imported: the standard library's fork server, tended.

A process pool would lose all its tasks with one dead worker (concurrent.futures) or keep the workers between tasks
(pebble), where memory of the last export stays pinned.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from exporter.readiness import PRELOAD_VARIABLE, Readiness, ask_readiness
from pipeline.locked_folder import LockedFolder

__all__ = ["ForkServer"]

_TEMPLATE = "exporter.template"
# Of a server that dies, or that has to do without a preload.
_MAX_STARTS = 3

# From the request for a worker to its process id; the first one waits for the server's imports too.
_ANSWER_S = 300.0
# How long to wait for the end of processes that were killed; one that the kernel holds must not hold up a batch.
_ORPHANS_S = 1.0
_END_S = 2.0
_POLL_S = 0.002
_PREFIX = "modelpress-preloads-"
_OWN_CHILDREN = Path("/proc/thread-self/children")


class ForkServer:
    """Starts processes as forks of a warm one.

    There is one in a process, as in multiprocessing itself.

    Args:
        template: The module that the server imports before its first fork.
    """

    def __init__(self, template: str = _TEMPLATE) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._template = template
        # None until we are told; then they go to a server that waits for them at the other end of the pipe.
        self._preloads: list[str] | None = None
        self._pipe: int | None = None
        self._folder: LockedFolder | None = None

    def begin(self) -> None:
        """Start the server, unless it runs; it imports in the background while we go on."""
        self._context.set_forkserver_preload(["exporter.orphanage", self._template])
        with _worker_environment(self._tell_preloads()):
            forkserver.ensure_running()

    def preload(self, names: Sequence[str]) -> None:
        """Have the server import these too, once it has imported the template; only the first call counts."""
        if self._preloads is None:
            self._preloads = list(names)
            if self._pipe is not None:
                os.write(self._pipe, (",".join(names) + "\n").encode())

    def make_fit(self) -> Readiness:
        """Wait for the server to be warm, without such preloads as would make a fork of it unsafe."""
        self.preload([])
        self.begin()
        if self._template != _TEMPLATE:
            # It leaves no record.
            return Readiness(is_imported=True, is_warm=True)
        for _ in range(_MAX_STARTS):
            readiness = ask_readiness(self.start_process)
            if readiness.unsafe_preloads:
                self._preloads = [name for name in self._preloads or () if name not in readiness.unsafe_preloads]
                self.end()
                self.begin()
            elif readiness.is_imported or not self._has_ended():
                break
        # Whoever is to read the preloads has done so by now.
        self._remove_pipe()
        return readiness

    def _has_ended(self) -> bool:
        """Whether there is no server; a process that was killed closes its connections a moment before it is gone."""
        deadline = time.monotonic() + _END_S
        while self.pid is not None and self.is_alive(self.pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _tell_preloads(self) -> str:
        if self._preloads is not None:
            return ",".join(self._preloads)
        if self._folder is None:
            try:
                self._folder = LockedFolder(Path(tempfile.gettempdir()), _PREFIX)
                os.mkfifo(self._folder.path / "preloads")
                # Both ways: opening it for writing alone would wait for the reader.
                self._pipe = os.open(self._folder.path / "preloads", os.O_RDWR)
            except OSError:
                # Nowhere to put it. Workers will do their imports themselves.
                self._preloads = []
                return ""
        return f"@{os.getpid()}:{self._folder.path / 'preloads'}"

    def start_process(
        self, target: Callable[..., None], arguments: Sequence[object], name: str, *, is_cold: bool = False
    ) -> BaseProcess:
        """Fork a process; a server that has died meanwhile is started anew.

        Args:
            target: What runs there.
            arguments: Of the target; those that need it are pickled.
            name: Of the process.
            is_cold: Start a new interpreter instead of a fork.

        Raises:
            OSError: The server died on the way, or was killed for its silence, or the machine allows no more processes.
            EOFError: Likewise.
        """
        context = multiprocessing.get_context("spawn") if is_cold else self._context
        # multiprocessing gives the child our sys.path, the user's folder included.
        process = context.Process(target=target, args=tuple(arguments), name=name)
        # Our own environment also holds while the server runs, but not if it has to be started anew.
        watchdog = threading.Timer(_ANSWER_S, self.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            with _worker_environment(self._tell_preloads()):
                process.start()
        finally:
            watchdog.cancel()
        return process

    @property
    def pid(self) -> int | None:
        """Of the server that runs, or ran last; None if there is none."""
        pid: int | None = _server()._forkserver_pid  # noqa: SLF001
        return pid

    @staticmethod
    def is_alive(pid: int) -> bool:
        """Whether a server runs still, that of now or one before it."""
        try:
            # Without taking its status away from multiprocessing.
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def kill_orphans(self, is_spared: Callable[[int], bool]) -> None:
        """Kill what workers that are gone have left behind; not to be called while one is being started.

        Such processes are the server's children (exporter.orphanage), as the workers are, of which we know.

        Args:
            is_spared: Tells by its process id one that a running worker has let go of.
        """
        deadline = time.monotonic() + _ORPHANS_S
        while orphans := [pid for pid in self._find_orphans() if not is_spared(pid)]:
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return
            # Their children are the next round's.
            time.sleep(_POLL_S)

    def _find_orphans(self) -> set[int]:
        if self.pid is None:
            return set()
        return _read_children(self.pid) - {child.pid for child in multiprocessing.active_children()}

    def kill(self) -> None:
        """End the server now; by itself it would first tear down all that it has imported, after we are gone."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the server and forget it."""
        if self.pid is not None:
            self.kill()
            _server()._stop()  # noqa: SLF001
        self._remove_pipe()

    def _remove_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


def _read_children(pid: int) -> set[int]:
    """The children of a process, zombies too."""
    if not _OWN_CHILDREN.exists():
        # A kernel without CONFIG_PROC_CHILDREN; this goes through all processes of the machine.
        with suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process(pid).children()}
    children: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children.update(map(int, (thread / "children").read_text().split()))
    return children


def _server() -> Any:
    # multiprocessing has no public way to it; Any, because its types have no private names either.
    return forkserver._forkserver  # type: ignore[attr-defined,unused-ignore]  # noqa: SLF001


@contextmanager
def _worker_environment(preloads: str) -> Iterator[None]:
    """What has to be set before the server's interpreter starts.

    One OpenMP thread: a fork after a parallel operator hangs in its first one. GPUs are counted by NVML: a fork after
    CUDA has started, which is torch's way of counting, cannot use it. UTF-8 whatever the locale: models print, and so
    does torch.
    """
    wanted = {
        PRELOAD_VARIABLE: preloads,
        "OMP_NUM_THREADS": "1",
        # Where a worker has more threads: idle ones sleep, instead of taking the cores of other workers.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # Also in workers that are not forked: it would send names and hashes of the models (exporter.template).
        "ORT_DISABLE_TELEMETRY": "1",
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
