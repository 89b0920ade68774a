"""The gateway as the batch sees it: a process that is started, talked to, and nothing is left of."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

import psutil

from exporter.errors import ClusterError, ConfigError, ExitCode
from pipeline.executor import Ended, Event, Notice, Pulse, Started
from pipeline.locked_folder import LockedFolder
from pipeline.on_ray.messages import Answer, Command, Done, Options, Ready, Refused

__all__ = ["GatewayProcess"]

# Ray's own variable for the folder of its sockets, whose paths may have 107 bytes; TMPDIR is too long on some machines.
_FOLDER = "RAY_TMPDIR"
_PREFIX = "modelpress-ray-"
_TICK_S = 0.1
# To connect, or to start a cluster, which takes eight seconds on two busy cores.
_CONNECT_S = 90.0
# To look nodes over: Ray makes their runtime environments first.
_ANSWER_S = 700.0
_STOP_S = 9.0
# To leave the cluster, or to end it. Where exports had to be ended first, that takes of the same time: a batch that is
# stopped is over within 15 s.
_CLOSE_S = 10.0
_END_S = 13.0
_MAX_WORDS = 300


class GatewayProcess:
    """Starts the gateway; it connects to the cluster while we go on.

    Args:
        options: Of the executor.
    """

    def __init__(self, options: Options) -> None:
        self._folder = LockedFolder(Path(os.environ.get(_FOLDER, "/tmp")), _PREFIX)  # noqa: S108  (unique, and ours)
        self._log = self._folder.path / "gateway.log"
        self._keeps_log = False
        # Until it has said that it is ready, or why not.
        self._is_asked = True
        self._is_at_work = False
        self._close_by_s: float | None = None
        ours, its = Pipe()
        self._connection = ours
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    *(sys.executable, "-m", "pipeline.on_ray.gateway"),
                    *(str(its.fileno()), str(os.getpid()), str(self._folder.path)),
                ],
                pass_fds=[its.fileno()],
                env=os.environ | _make_environment(options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Out of reach of the terminal's Ctrl-C, and known by its session as all that Ray starts.
                start_new_session=True,
            )
        its.close()
        ours.send(options)

    def await_connection(self) -> None:
        """Wait until there is a cluster; at once if there was one before.

        Raises:
            ClusterError: There is none.
            ConfigError: The project cannot be sent there.
        """
        if self._is_asked:
            self._await_ready("connected to Ray")
            self._is_asked = False

    def ask(self, command: Command) -> None:
        """Have a question answered by yes, or by an exception.

        Raises:
            ClusterError: The cluster is gone.
            ConfigError: The answer is no.
        """
        try:
            self._connection.send(command)
        except OSError as error:
            raise ClusterError(self.explain_end()) from error
        self._await_ready("answered")

    def _await_ready(self, what: str) -> None:
        try:
            if not self._connection.poll(_ANSWER_S):
                raise ClusterError(f"executor: the gateway has not {what} in {_ANSWER_S:.0f} s; {self._end_of_log()}")
            answer: Answer = self._connection.recv()
        except (OSError, EOFError) as error:
            raise ClusterError(self.explain_end()) from error
        if isinstance(answer, Refused):
            raise (ConfigError if answer.code is ExitCode.CONFIG else ClusterError)(answer.text)
        if not isinstance(answer, Ready):
            raise TypeError(f"the gateway answered {answer!r}")

    def run(self, command: Command) -> Iterator[Event]:
        """Send a command and yield the events that answer it, with a pulse several times a second.

        Raises:
            OSError: The gateway is gone.
            EOFError: Likewise.
        """
        self._connection.send(command)
        self._is_at_work = True
        pulse = Pulse({})
        while True:
            while self._connection.poll(_TICK_S):
                answer: Answer = self._connection.recv()
                if isinstance(answer, Done):
                    self._is_at_work = False
                    return
                if isinstance(answer, Pulse):
                    # Handed on at once: where many exports run, there may never be a gap between two of them.
                    pulse = answer
                if isinstance(answer, Started | Ended | Notice | Pulse):
                    yield answer
            yield pulse

    def stop(self, command: Command) -> bool:
        """End what runs; False if that did not come about."""
        now = time.monotonic()
        deadline = now + _STOP_S
        try:
            if self._is_at_work:
                self._close_by_s = now + _END_S
                self._connection.send(command)
            while self._is_at_work and self._connection.poll(max(0.0, deadline - time.monotonic())):
                self._is_at_work = not isinstance(self._connection.recv(), Done)
        except (OSError, EOFError):
            return False
        return not self._is_at_work

    def kill(self) -> None:
        """End it, and all that Ray runs on this machine for us, now. On other machines, Ray ends what has no owner."""
        for pid in self._find_processes():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _find_processes(self) -> set[int]:
        """Of its session, where Ray's processes stay when it is gone, and its descendants, the exports' workers too."""
        found = set()
        with suppress(psutil.Error):
            found = {child.pid for child in psutil.Process(self._process.pid).children(recursive=True)}
        for pid in psutil.pids():
            with suppress(OSError):
                if os.getsid(pid) == self._process.pid:
                    found.add(pid)
        return found

    def close(self) -> None:
        """Have it leave the cluster, or end the cluster that it started."""
        self._connection.close()
        if not self._is_asked:
            # One that still connects has nothing to put in order, and would be at it for seconds.
            patience_s = _CLOSE_S if self._close_by_s is None else self._close_by_s - time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, min(_CLOSE_S, patience_s)))
        self.kill()
        self._process.wait()
        if self._keeps_log:
            self._folder.leave()
        else:
            self._folder.remove()

    def explain_end(self) -> str:
        """Why it is gone, by its last words, which are kept."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_TICK_S)
        return f"the connection to Ray broke (status {self._process.poll()}); {self._end_of_log()}"

    def _end_of_log(self) -> str:
        self._keeps_log = True
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{words[:_MAX_WORDS]}; see {self._log}"


def _make_environment(options: Options) -> dict[str, str]:
    """What Ray reads as it is imported."""
    silence = {"RAY_USAGE_STATS_ENABLED": "0"}
    if options.address is not None:
        return silence
    # Nobody else gets in. Without a token of ours Ray would make one and write it to the user's home.
    return silence | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
