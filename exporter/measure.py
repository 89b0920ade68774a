"""The measure step: how fast the saved file runs in ONNX Runtime."""

import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from exporter.arrays import to_array, to_ort_value
from exporter.device import CPU_PROVIDERS
from exporter.evidence import WeightsMode
from exporter.parity import open_session
from exporter.result import FileRecord

__all__ = ["can_prepack", "count_parameters", "measure_latency"]

_MAX_CALLS = 20
_MAX_S = 1.0
_MAX_PREPACKED_BYTES = 1 << 30


def can_prepack(mode: WeightsMode, files: Iterable[FileRecord]) -> bool:
    """Whether latency is measured with prepacked weights, as in production.

    Prepacking copies the weights into memory. Streamed ones may have been streamed because there is no room for
    them, so above 1 GiB they stay mapped, and the result says that the latency is that of mapped weights.
    """
    size_bytes = sum(file.size_bytes for file in files if file.path in ("model.onnx", "model.onnx.data"))
    return mode is not WeightsMode.streamed or size_bytes <= _MAX_PREPACKED_BYTES


def measure_latency(
    path: Path,
    example: dict[str, torch.Tensor],
    threads: int,
    *,
    prepack: bool = True,
    providers: Sequence[Any] = CPU_PROVIDERS,
) -> float:
    """Median time of a call on the example inputs, in seconds; on a GPU, the copies to it and back are part of it.

    After one call to warm up, up to 20 calls are made, for about a second at most. Exports that run beside
    this one slow it down: compare numbers of the same batch, not of different machines.
    """
    session = open_session(path, prepack=prepack, threads=threads, providers=providers)
    # Of arrays that live as long as the values that share their memory.
    arrays = {name: to_array(tensor) for name, tensor in example.items()}
    feeds = {name: to_ort_value(array) for name, array in arrays.items()}
    outputs = [output.name for output in session.get_outputs()]
    session.run_with_ort_values(outputs, feeds)
    times: list[float] = []
    while len(times) < _MAX_CALLS and sum(times) < _MAX_S:
        start = time.perf_counter()
        session.run_with_ort_values(outputs, feeds)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def count_parameters(module: torch.nn.Module) -> int:
    """Elements of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
