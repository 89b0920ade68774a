"""Whether there is an NVIDIA GPU that torch could use, found out without loading torch; and how to keep away from it.

The parent of a batch asks here before anything starts. What is done on a GPU is `exporter.device`'s business.
"""

import ctypes
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.spec import Device, ExportSpec

__all__ = ["find_device_problem", "hidden_gpus", "hide_gpus", "why_no_cuda"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# CUDA_ERROR_NO_DEVICE: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html
_NO_DEVICE = 100


def find_device_problem(spec: ExportSpec) -> str:
    """What is wrong with a spec's device on this machine, as a line; empty if nothing is."""
    if spec.export.device is not Device.cuda:
        return ""
    reason = why_no_cuda()
    return f"export.device: cuda, but {reason}" if reason else ""


def why_no_cuda(load: Callable[[str], Any] = ctypes.CDLL, torch_file: Path | None = None) -> str:
    """Why torch could use no NVIDIA GPU in this process, and what to do, in one line; empty if it could.

    Starts the driver in this process: a fork of it could not use a GPU.

    Args:
        load: Opens a library by its name.
        torch_file: torch's version.py; None is that of the installed torch.
    """
    return _blame_torch(torch_file or _find_torch()) or _blame_driver(load)


def _find_torch() -> Path:
    # Finds it without importing it, which takes a second.
    found = importlib.util.find_spec("torch")
    return Path(found.origin if found is not None and found.origin else "torch").parent / "version.py"


def _blame_torch(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return "there is no torch"
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if re.search(r"^cuda\b[^=]*= '", text, re.MULTILINE):
        return ""
    name = f"torch {version[1]}" if version else "torch"
    return f"{name} is built without CUDA; install a build that has it, or leave export.device=cpu"


def _blame_driver(load: Callable[[str], Any]) -> str:
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1); leave export.device=cpu"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status not in (0, _NO_DEVICE):
        return f"the NVIDIA driver does not start (CUDA error {status}); mend it, or leave export.device=cpu"
    if status == _NO_DEVICE or count.value == 0:
        visible = os.environ.get(_VISIBLE)
        told = "" if visible is None else f" ({_VISIBLE} is {visible!r})"
        return f"the NVIDIA driver shows no GPU{told}; leave export.device=cpu"
    return ""


def hide_gpus() -> None:
    """Let this process see no GPU from now on; for one in which nobody has used CUDA yet.

    torch.export saves the state of the GPU's random numbers where there is a GPU, and thereby starts CUDA also for
    a model on the CPU: hundreds of MiB of the GPU for each worker.
    """
    os.environ[_VISIBLE] = ""


@contextmanager
def hidden_gpus() -> Iterator[None]:
    """Let torch see no GPU in the body, for a process that will be forked: a fork cannot use CUDA after its parent.

    Needs PYTORCH_NVML_BASED_CUDA_CHECK=1 in the environment: torch starts the driver to count GPUs otherwise.
    """
    before = os.environ.get(_VISIBLE)
    hide_gpus()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before
