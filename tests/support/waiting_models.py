"""Models that can be caught at work: the first one to be built with a flag waits, and the next one does not."""

import os
import time
from pathlib import Path

import torch
from torch import nn


class WaitsOnce(nn.Module):
    """Writes its process id to a file that is not there yet, and waits; where it is there, it does neither."""

    def __init__(self, flag: str):
        super().__init__()
        path = Path(flag)
        if not path.exists():
            path.with_suffix(".new").write_text(str(os.getpid()))
            path.with_suffix(".new").rename(path)
            self.wait()

    def wait(self):
        time.sleep(300)

    def forward(self, x):
        return x * 2


class TakesMemoryOnce(WaitsOnce):
    """Takes 3 GiB meanwhile."""

    def wait(self):
        ballast = torch.ones(3 * 2**28)
        super().wait()
        del ballast
