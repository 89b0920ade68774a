"""Where the module and its inputs live, and what goes with it: ONNX Runtime's providers, float32 kept exact, memory.

The one place that decides. Whether there is a GPU at all is `exporter.cuda`'s business. What is on a GPU comes back to
the CPU in `exporter.arrays.to_array`; the graph is the same for either device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import onnxruntime as ort
import torch
from torch import nn

from exporter import memory
from exporter.errors import FailureKind, StepError
from exporter.free_memory import read_free_bytes
from exporter.spec import Device

__all__ = [
    "CPU_PROVIDERS",
    "CudaMemory",
    "HostMemory",
    "Memory",
    "choose_memory",
    "choose_providers",
    "exact_float32",
    "place_module",
]

CPU_PROVIDERS: tuple[Any, ...] = ("CPUExecutionProvider",)
# Where it does not run an operator, or does not load, ONNX Runtime goes on to the CPU. TF32 is its default, too.
_CUDA_PROVIDER = ("CUDAExecutionProvider", {"use_tf32": "0"})


class Memory(Protocol):
    """The memory that a module's tensors are in."""

    def read_free_bytes(self) -> int: ...

    def read_used_bytes(self) -> int: ...

    def read_peak_bytes(self) -> int: ...


class HostMemory:
    """The memory of this process on the machine; the peak is since `exporter.memory.reset_peak_rss`."""

    def read_free_bytes(self) -> int:
        return read_free_bytes()

    def read_used_bytes(self) -> int:
        return memory.read_rss_bytes() or 0

    def read_peak_bytes(self) -> int:
        return memory.read_peak_rss_bytes() or 0


class CudaMemory:
    """The GPU's memory as torch's allocator counts it: tensors, but neither CUDA itself nor ONNX Runtime's.

    Args:
        cuda: `torch.cuda`, or what stands for it.
    """

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self._cuda = cuda

    def reset_peak(self) -> None:
        """Start the high-water mark anew."""
        # torch refuses to before CUDA has started, when there is nothing to start anew.
        if self._cuda.is_initialized():
            self._cuda.reset_peak_memory_stats()

    def read_free_bytes(self) -> int:
        free, _total = self._cuda.mem_get_info()
        # The allocator keeps freed blocks, and hands them out again.
        return int(free) + self._cuda.memory_reserved() - self._cuda.memory_allocated()  # type: ignore[no-any-return]

    def read_used_bytes(self) -> int:
        return int(self._cuda.memory_allocated())

    def read_peak_bytes(self) -> int:
        return int(self._cuda.max_memory_allocated())


def choose_memory(device: Device) -> Memory:
    """The memory in which a module on a device has its tensors."""
    return CudaMemory() if device is Device.cuda else HostMemory()


def place_module(module: nn.Module, device: Device) -> nn.Module:
    """Move a module, its weights loaded, to where it is to run; one for the CPU is left where it is.

    Raises:
        StepError: The module is on a GPU already, and the spec says that it runs on the CPU.
    """
    if device is Device.cuda:
        return module.to("cuda")
    found = next((tensor.device for tensor in (*module.parameters(), *module.buffers()) if tensor.is_cuda), None)
    if found is not None:
        raise StepError(
            FailureKind.build_error, f"the module is on {found}; export.device is cpu", "set export.device=cuda"
        )
    return module


def choose_providers(device: Device, available: Sequence[str] | None = None) -> tuple[Any, ...]:
    """What ONNX Runtime runs on, by priority: its CUDA provider where that is wanted and installed, and its CPU.

    Args:
        device: Of the module.
        available: The providers' names; None are those of the installed ONNX Runtime.
    """
    installed = ort.get_available_providers() if available is None else available
    if device is Device.cuda and _CUDA_PROVIDER[0] in installed:
        return (_CUDA_PROVIDER, *CPU_PROVIDERS)
    return CPU_PROVIDERS


@contextmanager
def exact_float32(device: Device) -> Iterator[None]:
    """Compute float32 as float32 in the body.

    torch's default on a GPU is TF32 for convolutions and recurrent layers, which keeps 10 bits of 23: an error that
    would drown what parity looks for. https://docs.pytorch.org/docs/main/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    if device is not Device.cuda:
        yield
        return
    # Any: torch makes these modules at run time.
    known: Any = torch.backends
    backends = [known.cuda.matmul, known.cudnn.conv, known.cudnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
