"""Time, CPU time and memory of a command with all that it starts, measured from outside."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Measurement", "measure"]

_PR_SET_CHILD_SUBREAPER = 36
# What outlives its command, such as multiprocessing's tracker, has this long to end by itself.
_GRACE_S = 5.0
_MEMORY_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one command took; the numbers are rubbish where `failure` says what went wrong."""

    # Until the command itself ended.
    wall_s: float
    # User and system, of the command and of everything that it started.
    cpu_s: float
    # Of all these processes at one moment, a page shared by several counted once; None where nobody looked.
    peak_bytes: int | None = None
    failure: str = ""


def measure(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    log: Path,
    time_limit_s: float,
    with_memory: bool = False,
) -> Measurement:
    """Run a command to its end; nothing of it is left running.

    This process becomes the parent of processes that lost theirs, so that the CPU time of a daemon is counted too.

    Args:
        command: And its arguments.
        cwd: Where it runs.
        environment: All of it.
        log: Gets standard output and standard error.
        time_limit_s: Then it is killed.
        with_memory: Read the memory twice a second, which slows a busy machine down a little.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    others = {child.pid for child in psutil.Process().children()}
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(time_limit_s, _kill, [process.pid])
        timer.start()
        peaks: list[int] = []
        try:
            with _watching(process.pid, peaks, is_on=with_memory):
                _, status, usage = os.wait4(process.pid, 0)
                wall_s = time.perf_counter() - start
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime + _reap_orphans(others)
    return Measurement(
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_bytes=max(peaks, default=None),
        failure=_describe_end(process.returncode, log, is_late=wall_s >= time_limit_s),
    )


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _reap_orphans(others: set[int]) -> float:
    """Wait for what the command left behind, and end it if need be; returns its CPU time in seconds."""
    cpu_s = 0.0
    deadline = time.monotonic() + _GRACE_S
    while orphans := [child for child in psutil.Process().children() if child.pid not in others]:
        for orphan in orphans:
            if time.monotonic() > deadline:
                with suppress(psutil.Error):
                    orphan.kill()
            pid, _, usage = os.wait4(orphan.pid, os.WNOHANG)
            if pid:
                cpu_s += usage.ru_utime + usage.ru_stime
        time.sleep(0.01)
    return cpu_s


@contextmanager
def _watching(pid: int, peaks: list[int], *, is_on: bool) -> Iterator[None]:
    """Append the memory of a process and its descendants to a list, now and then, while the body runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_MEMORY_INTERVAL_S):
            with suppress(psutil.Error):
                parent = psutil.Process(pid)
                peaks.append(sum(_read_pss(process) for process in (parent, *parent.children(recursive=True))))

    thread = threading.Thread(target=watch)
    if is_on:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if is_on:
            thread.join()


def _read_pss(process: psutil.Process) -> int:
    """A process's share of memory, in bytes; 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _describe_end(status: int, log: Path, *, is_late: bool) -> str:
    if status == 0:
        return ""
    if is_late:
        return "not done in time"
    lines = log.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"{ended}{': ' if last else ''}{last[:200]}"
