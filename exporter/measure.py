"""The measure step: how fast the saved file runs in ONNX Runtime."""

import statistics
import time
from pathlib import Path

import torch

from exporter.arrays import to_array, to_ort_value
from exporter.parity import open_session

__all__ = ["count_parameters", "measure_latency"]

_MAX_CALLS = 20
_MAX_S = 1.0


def measure_latency(path: Path, example: dict[str, torch.Tensor], threads: int) -> float:
    """Median time of a call on the example inputs, in seconds, weights prepacked as in production.

    After one call to warm up, up to 20 calls are made, for about a second at most. Exports that run beside
    this one slow it down: compare numbers of the same batch, not of different machines.
    """
    session = open_session(path, prepack=True, threads=threads)
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
