"""Models that do to their process, its neighbours or the machine what no model should, as long as a file is there.

Only workers import this module. Each takes a folder, the project's own: without a file named `planted` there it does
nothing wrong, so that the same export, run again, can pass. (An argument that names a file is part of the fingerprint.)
"""

import atexit
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

OUTPUT_BYTES = 200_000_000
LINE_BYTES = 50_000_000
NUM_CHILDREN = 100


class Sensitive(nn.Module):
    """Does nothing wrong; its weights show a seed, a dtype and a number of threads that are not its own."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.layer = nn.Linear(3, width)
        self.register_buffer("noise", torch.from_numpy(np.random.rand(width)).float() + random.random())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.noise


class Hostile(nn.Module):
    """Strikes while it is built."""

    def __init__(self, folder: str, **options: str):
        super().__init__()
        self.is_planted = (Path(folder) / "planted").exists()
        if self.is_planted:
            self.strike(**options)

    def strike(self) -> None: ...

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0


class StrikesInForward(Hostile):
    def forward(self, x):
        if self.is_planted:
            self.strike_in_forward()
        return super().forward(x)


def tell_pid(file: str) -> None:
    """Written whole or not at all: somebody watches for it."""
    Path(f"{file}.new").write_text(str(os.getpid()))
    Path(f"{file}.new").replace(file)


class WaitsForItsKiller(Hostile):
    def strike(self, file: str):
        tell_pid(file)
        time.sleep(600)


class StopsUntilContinued(Hostile):
    def strike(self, file: str):
        tell_pid(file)
        os.kill(os.getpid(), signal.SIGSTOP)


class StopsForGood(Hostile):
    def strike(self):
        os.kill(os.getpid(), signal.SIGSTOP)


class KillsItsParent(Hostile):
    def strike(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


class AsksForTooMuch(Hostile):
    def strike(self):
        torch.empty(2**60, dtype=torch.uint8)


class IsRefusedMemory(Hostile):
    """As under `prlimit --as` or `ulimit -v`."""

    def strike(self):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
        torch.zeros(2**31, dtype=torch.uint8)


class IsRefusedMemoryByPython(Hostile):
    def strike(self):
        bytearray(2**60)


class RaisesGeneratorExit(StrikesInForward):
    def strike_in_forward(self):
        raise GeneratorExit


class OwnBaseException(BaseException):
    pass


class RaisesBaseException(StrikesInForward):
    def strike_in_forward(self):
        raise OwnBaseException("not an Exception")


class ExitsWithText(StrikesInForward):
    def strike_in_forward(self):
        sys.exit("giving up")


class SpeechlessError(Exception):
    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


class RaisesWithoutWords(Hostile):
    def strike(self):
        raise SpeechlessError


class ExitsWithoutWords(Hostile):
    """Not an Exception, and cannot be put in words."""

    def strike(self):
        raise type("SpeechlessExit", (BaseException,), {"__str__": SpeechlessError.__str__})


class RaisesNoise(Hostile):
    """Neither UTF-8 nor a terminal can take this."""

    def strike(self):
        raise RuntimeError("a lone surrogate \udcff, a NUL \0, a bell \a,\r\n\x1b[31mred\x1b[0m \x1b]0;title\x07")


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


class RaisesUnpicklable(StrikesInForward):
    def strike_in_forward(self):
        raise UnpicklableError("holds a lock")


class RaisesAtLength(Hostile):
    def strike(self):
        raise RuntimeError("0123456789abcdef/ " * (10_000_000 // 18))


class PrintsWithoutEnd(Hostile):
    """200 MB, of which 50 MB are one line."""

    def strike(self):
        os.write(1, b"the beginning\n")
        line = b"n" * LINE_BYTES + b"\n"
        noise = os.urandom(1 << 20)
        for start in range(0, len(line), 1 << 20):
            os.write(1, line[start : start + (1 << 20)])
        for _ in range((OUTPUT_BYTES - LINE_BYTES) >> 20):
            os.write(1, noise)
        os.write(1, b"\nthe end\n")


class NeverEndsByItself(Hostile):
    def strike(self):
        threading.Thread(target=time.sleep, args=(999,)).start()
        atexit.register(time.sleep, 999)


class LeavesADoubleForkedDaemon(Hostile):
    def strike(self, seconds: str):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", seconds])
            os._exit(0)
        os.wait()


class LeavesADaemonWithoutEnvironment(Hostile):
    """Nothing tells whose child it was, once its parent is gone."""

    def strike(self, seconds: str):
        subprocess.run(["setsid", "sh", "-c", f"env -i sleep {seconds} &"], check=True)


class LeavesManyChildren(Hostile):
    def strike(self, seconds: str):
        for _ in range(NUM_CHILDREN):
            subprocess.Popen(["sleep", seconds], start_new_session=True)


class LeavesAWriterBehind(Hostile):
    """Its child goes on to print when the worker has ended."""

    def strike(self, seconds: str):
        program = f"while :; do echo still here; sleep 0.0{seconds}; done"
        subprocess.Popen(["sh", "-c", program], start_new_session=True)


class ChangesTheProcess(Hostile):
    """All that a process has one of."""

    def strike(self):
        os.environ.clear()
        os.environ["OMP_NUM_THREADS"] = "7"
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(True)
        sys.path[:] = ["/nonsense"]
        sys.setrecursionlimit(5000)
        os.chdir("/")
        os.umask(0o777)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        os.nice(10)


class HoldsMemory(nn.Module):
    """Takes memory, and keeps it until some seconds after another export has begun to take some too."""

    def __init__(self, num_bytes: int, own: str, other: str):
        super().__init__()
        Path(own).touch()
        # Written to, or the kernel would not have to find it.
        blocks = [b"x" * (50 << 20) for _ in range(num_bytes // (50 << 20))]
        deadline = time.monotonic() + 60
        while not (Path(other).exists() and time.time() > Path(other).stat().st_mtime + 3):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        blocks.clear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0
