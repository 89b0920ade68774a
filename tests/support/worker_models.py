"""Models for the executor suite: most of them do to their worker process what no model should.

Only workers import this module. The test modules name its classes by dotted path.
"""

import collections
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time

import torch
from torch import nn

NOISE_BYTES = 5_000_000


class Doubles(nn.Module):
    """Does nothing wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0


class TellsOfGpus(Doubles):
    """Prints what a worker is shown of GPUs, and how torch is to count them."""

    def __init__(self):
        super().__init__()
        names = ("CUDA_VISIBLE_DEVICES", "PYTORCH_NVML_BASED_CUDA_CHECK")
        print("GPUs:", *(repr(os.environ.get(name)) for name in names))


class TellsOfItsParent(Doubles):
    def __init__(self):
        super().__init__()
        print("parent", os.getppid())


class Segfaults(Doubles):
    def forward(self, x):
        ctypes.string_at(0)
        return super().forward(x)


class Aborts(Doubles):
    def __init__(self):
        super().__init__()
        os.abort()


class KillsItself(Doubles):
    def __init__(self):
        super().__init__()
        os.kill(os.getpid(), signal.SIGKILL)


class ExitsAtOnce(Doubles):
    def forward(self, x):
        os._exit(0)


class CallsSysExit(Doubles):
    def forward(self, x):
        sys.exit(3)


class RaisesKeyboardInterrupt(Doubles):
    def __init__(self):
        super().__init__()
        raise KeyboardInterrupt


class IgnoresSigtermAndHangs(Doubles):
    """Hangs in Python, beside a child process that must go with it."""

    def __init__(self, seconds: str):
        super().__init__()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", seconds])
        while True:
            time.sleep(0.05)


class HangsHoldingTheInterpreter(Doubles):
    """Hangs in C: no Python signal handler and no other thread ever runs again."""

    def forward(self, x):
        collections.deque(itertools.count(), maxlen=0)
        return super().forward(x)


class PrintsNoise(Doubles):
    def __init__(self):
        super().__init__()
        os.write(1, b"\xff\xfe not UTF-8 \x80\n")
        print("a lone surrogate: \udcff")
        print("n" * NOISE_BYTES)


class ClosesStandardStreams(Doubles):
    def __init__(self):
        super().__init__()
        for number in (0, 1, 2):
            os.close(number)


class LeavesAChildBehind(Doubles):
    def __init__(self, seconds: str):
        super().__init__()
        subprocess.Popen(["sleep", seconds])


class NeedsADaemon(Doubles):
    """Its helper has let go of it, as daemons do, and is still needed when others have ended."""

    def __init__(self, seconds: str):
        super().__init__()
        helper = subprocess.run(
            ["setsid", "--fork", "sh", "-c", f"echo $$; exec sleep {seconds} >&- 2>&-"], check=True, capture_output=True
        )
        time.sleep(4)
        os.kill(int(helper.stdout), 0)


class LeavesADaemonBehind(Doubles):
    """Its child has a session of its own, as what `setsid` starts."""

    def __init__(self, seconds: str):
        super().__init__()
        subprocess.Popen(["sleep", seconds], start_new_session=True)


class ChangesCwdAndUmask(Doubles):
    def __init__(self):
        super().__init__()
        os.chdir("/")
        os.umask(0o777)
