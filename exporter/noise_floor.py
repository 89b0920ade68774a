"""Whether ONNX Runtime's error is of the size of PyTorch's own: both are held against a run in float64.

A constant tolerance asks how far two float32 results are apart, and cannot know how far apart two right ones may be.
Here PyTorch's own rounding error is the measure. docs/parity.md has the formulas, the limits and the measurements
that they come from.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.comparison import tolerance
from exporter.evidence import CaseRecord, NoiseRecord, NoiseVerdict, OutputParity, RoundingError
from exporter.spec import ParityOptions, Precision

__all__ = ["find_usual_noise", "measure_noise", "settle"]

# Elements that are looked at together: what this needs of memory is the same for any output.
_CHUNK = 2**18
_EPS = 2.0**-23
# ONNX Runtime's own sigmoid is off by 1.3e-7 where its value is next to nothing (measured, docs/parity.md).
_LEAST_NOISE = _EPS / 8
# Fewer elements, over all cases, say too little of what PyTorch's error usually is.
_MIN_ELEMENTS = 16
# Where PyTorch's own error is more than this of the largest value, it is no rounding error: the float64 run took
# another branch, or float32 is not enough for the model.
_MAX_TORCH_ERROR = 0.05
# The part of the limit within which a miss of the tolerance is forgiven.
_FORGIVEN = 1 / 6
# Nothing that is off by more than this of the largest value is forgiven: where `forward` asks for its dtype, the
# float64 run is another model, and what PyTorch is off by is no measure for ONNX Runtime.
_MAX_FORGIVEN_ERROR = 0.01
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def measure_noise(
    expected: NDArray[Any], actual: NDArray[Any], exact: NDArray[Any], precision: Precision
) -> NoiseRecord | None:
    """The errors of PyTorch and of ONNX Runtime against float64, in one output of one case.

    None where there is nothing to measure: no float32, no elements, NaN and infinity that are not the same in all, or
    exact values that float32 does not reach (`torch.finfo(x.dtype).min` is another number in float64).

    Args:
        expected: From PyTorch's eager module.
        actual: From ONNX Runtime.
        exact: From the module in float64.
        precision: Gives rtol and atol.
    """
    if expected.dtype != np.float32 or actual.dtype != np.float32 or not expected.shape == actual.shape == exact.shape:
        return None
    finite = np.isfinite(exact)
    if not all(np.array_equal(found[~finite], exact[~finite], equal_nan=True) for found in (expected, actual)):
        return None
    if not (np.isfinite(expected[finite]).all() and np.isfinite(actual[finite]).all()):
        return None
    exact = exact[finite]
    if not exact.size:
        return None
    peak = max(float(np.abs(chunk).max()) for (chunk,) in _chunks(exact))
    if peak > _FLOAT32_MAX:
        return None
    power = sum(float(np.square(chunk).sum()) for (chunk,) in _chunks(exact))
    return NoiseRecord(
        num_elements=exact.size,
        scale=float(np.sqrt(power / exact.size)),
        peak=peak,
        torch=_measure_error(expected[finite], exact, power, precision),
        ort=_measure_error(actual[finite], exact, power, precision),
    )


def settle(cases: Sequence[CaseRecord], options: ParityOptions) -> list[CaseRecord]:
    """The cases with the verdict on each output as the noise floor, where it is known, makes it.

    This takes all cases at once: an output of few elements may be exact in PyTorch by luck in one of them.
    """
    usual = find_usual_noise(cases)
    return [
        replace(case, outputs=[_settle_output(output, usual.get(output.output), options) for output in case.outputs])
        for case in cases
    ]


def _measure_error(found: NDArray[Any], exact: NDArray[Any], power: float, precision: Precision) -> RoundingError:
    largest = in_tolerances = total = along = squares = 0.0
    for part, truth in _chunks(found, exact):
        error = part - truth
        total += float(error.sum())
        along += float(np.dot(error, truth))
        squares += float(np.dot(error, error))
        np.abs(error, out=error)
        largest = max(largest, float(error.max()))
        allowed = tolerance(precision, np.abs(truth))
        # Nothing is allowed where this is zero; an error there is beyond any multiple.
        shares = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
        in_tolerances = max(in_tolerances, float(shares.max()))
    bias = abs(total) / exact.size
    gain = abs(along) / np.sqrt(power * exact.size) if power else 0.0
    return RoundingError(
        rms=float(np.sqrt(squares / exact.size)),
        max=largest,
        drift=float(max(bias, gain)),
        in_tolerances=in_tolerances if np.isfinite(in_tolerances) else None,
    )


def _chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[np.float64], ...]]:
    for start in range(0, arrays[0].size, _CHUNK):
        yield tuple(array[start : start + _CHUNK].astype(np.float64) for array in arrays)


def find_usual_noise(cases: Sequence[CaseRecord]) -> dict[str, float]:
    """For each output PyTorch's error over all cases, relative to its scale; none for what has few elements."""
    found: dict[str, list[NoiseRecord]] = {}
    for case in cases:
        for output in case.outputs:
            if output.noise is not None and _is_rounding(output.noise):
                found.setdefault(output.output, []).append(output.noise)
    usual: dict[str, float] = {}
    for name, records in found.items():
        if sum(record.num_elements for record in records) >= _MIN_ELEMENTS:
            power = sum(record.num_elements * record.scale**2 for record in records)
            squares = sum(record.num_elements * record.torch.rms**2 for record in records)
            usual[name] = float(np.sqrt(squares / power)) if power else 0.0
    return usual


def _is_rounding(noise: NoiseRecord) -> bool:
    return noise.torch.max <= _MAX_TORCH_ERROR * noise.peak


def _settle_output(output: OutputParity, usual: float | None, options: ParityOptions) -> OutputParity:
    noise = output.noise
    if noise is None or usual is None or not _is_rounding(noise):
        return output
    ratio = _compare_errors(noise, usual)
    forgiven = _FORGIVEN * options.max_noise_ratio
    if ratio > options.max_noise_ratio:
        noise = replace(noise, ratio=ratio, verdict=NoiseVerdict.wrong)
        reason = output.reason or f"{ratio:.3g} times PyTorch's own rounding error (limit {options.max_noise_ratio:g})"
        return replace(output, passed=False, reason=reason, noise=noise)
    is_near = noise.ort.max <= _MAX_FORGIVEN_ERROR * noise.peak
    if ratio > forgiven or not is_near or not _is_as_far_off_in_torch(noise, forgiven):
        return replace(output, noise=replace(noise, ratio=ratio))
    return replace(output, passed=True, reason="", noise=replace(noise, ratio=ratio, verdict=NoiseVerdict.right))


def _compare_errors(noise: NoiseRecord, usual: float) -> float:
    """ONNX Runtime's error as a multiple of PyTorch's: the largest of the multiples of three kinds of error."""
    torch, ort = noise.torch, noise.ort
    expected = usual * noise.scale
    typical = max(torch.rms, expected, _EPS * noise.scale, _LEAST_NOISE)
    extreme = max(torch.max, expected, _EPS * noise.peak, _LEAST_NOISE)
    # Rounding errors mostly cancel in a mean. That of few elements, or of related ones, does not shrink by much.
    share = min(1.0, max(1 / 8, 4 / math.sqrt(noise.num_elements)))
    drift = max(torch.drift, share * max(torch.rms, expected), _EPS * noise.scale, _LEAST_NOISE)
    return float(max(ort.rms / typical, ort.max / extreme, ort.drift / drift))


def _is_as_far_off_in_torch(noise: NoiseRecord, factor: float) -> bool:
    # Each element by its own size: where large and small values stand side by side, the ratio is that of the large.
    torch, ort = noise.torch.in_tolerances, noise.ort.in_tolerances
    return torch is not None and ort is not None and ort <= factor * torch
