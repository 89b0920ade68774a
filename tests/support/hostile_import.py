"""A module that acts as soon as it is imported; only a worker may do so."""

import os
import sys
import threading
import time

import torch
from torch import nn

print("imported by", os.getpid())
os.chdir("/")
os.environ["MODELPRESS_TEST_TRACE"] = "imported"
torch.manual_seed(99)
torch.set_default_dtype(torch.float64)
sys.modules["json.tool"] = None
threading.Thread(target=time.sleep, args=(999,)).start()


class Imported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0
