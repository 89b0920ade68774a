"""Holds ONNX Runtime's output against PyTorch's: shape and dtype first, then every element.

An element passes if `|actual - expected| <= atol + rtol * |expected|`, as in numpy.isclose, but NaN and infinity
fail unless they are declared, and then they have to stand in the same places. A precision may gate the norm of the
whole error instead, or both. Integers and booleans have to be equal in every precision.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import OutputParity
from exporter.spec import Precision

__all__ = ["NONFINITE", "compare", "same_bits", "tolerance"]

# Begins the reason of an output that failed for this alone.
NONFINITE = "NaN or infinity"


def compare(
    output: str,
    expected: NDArray[Any],
    actual: NDArray[Any],
    precision: Precision,
    *,
    allow_nonfinite: bool = False,
) -> OutputParity:
    """Compare one output of one case.

    Args:
        output: The output's name.
        expected: From PyTorch's eager module.
        actual: From ONNX Runtime, on the same inputs.
        precision: Gives the gates.
        allow_nonfinite: NaN and infinity may occur.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        torch_form, ort_form = (f"{array.dtype}{list(array.shape)}" for array in (expected, actual))
        return _failed(output, expected.size, f"torch gives {torch_form}, ONNX Runtime {ort_form}")
    wide_expected, wide_actual = _widen(expected), _widen(actual)
    finite = np.isfinite(wide_expected) & np.isfinite(wide_actual)
    num_nonfinite = expected.size - int(finite.sum())
    if num_nonfinite and not allow_nonfinite:
        places = [
            name for name, array in (("torch", wide_expected), ("ONNX Runtime", wide_actual)) if _nonfinite(array)
        ]
        reason = f"{NONFINITE} in {num_nonfinite} of {expected.size} elements ({' and '.join(places)})"
        return _failed(output, expected.size, reason, num_nonfinite)
    # Where not finite, equal NaN or equal infinity is the only match.
    displaced = int((~finite & ~_same_nonfinite(wide_expected, wide_actual)).sum())
    # Opposite ends of float64 are further apart than it can say: infinity, and out of tolerance.
    with np.errstate(over="ignore"):
        difference = np.abs(wide_actual[finite] - wide_expected[finite])
    magnitude = np.abs(wide_expected[finite])
    allowed = tolerance(precision, magnitude)
    num_mismatched = int((difference > allowed).sum()) + displaced
    in_tolerances = _largest_share(difference, allowed)
    rel_l2 = _relative_norm(difference, magnitude)
    # Integers above 2**53 do not fit a double; equality is asked of them, and of booleans, as they are.
    if expected.dtype.kind in "iub":
        num_mismatched = max(num_mismatched, int((expected != actual).sum()))
    # Nothing can be said relative to an expected zero.
    comparable = magnitude > 0
    with np.errstate(over="ignore"):
        relative = difference[comparable] / magnitude[comparable]
    reasons = [f"{num_mismatched} of {expected.size} elements out of tolerance"] if num_mismatched else []
    limit = precision.max_rel_l2
    if limit is not None and (rel_l2 is None or rel_l2 > limit):
        reasons.append(f"rel_l2 {'infinite' if rel_l2 is None else f'{rel_l2:.3g}'} is over {limit:g}")
    return OutputParity(
        output=output,
        passed=not reasons,
        num_elements=expected.size,
        num_mismatched=num_mismatched,
        max_abs_diff=_largest(difference),
        max_rel_diff=_largest(relative),
        rel_l2=rel_l2,
        in_tolerances=in_tolerances,
        reason=", ".join(reasons),
    )


def same_bits(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two runs gave the same; NaN equals NaN here."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(np.array_equal(first, second, equal_nan=first.dtype.kind == "f"))


def _widen(array: NDArray[Any]) -> NDArray[np.float64]:
    return array.astype(np.float64)


def tolerance(precision: Precision, magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest difference that each element may have; infinite where elements are not gated."""
    if precision.rtol is None and precision.atol is None:
        return np.full_like(magnitude, np.inf)
    return (precision.atol or 0.0) + (precision.rtol or 0.0) * magnitude


def _relative_norm(difference: NDArray[np.float64], magnitude: NDArray[np.float64]) -> float | None:
    """The norm of the one over that of the other; 0 for no difference, None where it is infinite."""
    # Squares of float64 overflow: both are scaled by the largest element first.
    largest = max(difference.max(initial=0.0), magnitude.max(initial=0.0))
    if not difference.any():
        return 0.0
    if not np.isfinite(largest) or not magnitude.any():
        return None
    ratio = float(np.linalg.norm(difference / largest) / max(np.linalg.norm(magnitude / largest), np.finfo(float).tiny))
    return ratio if np.isfinite(ratio) else None


def _largest_share(difference: NDArray[np.float64], allowed: NDArray[np.float64]) -> float | None:
    """The largest difference as a multiple of what is allowed it; None where that is nothing, or no limit at all.

    Overwrites `allowed`, since an output may be large.
    """
    if np.isinf(allowed).all():
        return 0.0 if not allowed.size else None
    if difference[allowed == 0].any():
        return None
    # Where both are infinite nothing can be said, either.
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(difference, allowed, out=allowed, where=allowed > 0)
    return _largest(allowed)


def _largest(differences: NDArray[np.float64]) -> float | None:
    largest = float(differences.max(initial=0.0))
    return largest if np.isfinite(largest) else None


def _nonfinite(array: NDArray[np.float64]) -> bool:
    return not np.isfinite(array).all()


def _same_nonfinite(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (np.isnan(first) & np.isnan(second)) | (np.isinf(first) & (first == second))
    return same


def _failed(output: str, num_elements: int, reason: str, num_mismatched: int | None = None) -> OutputParity:
    return OutputParity(
        output=output,
        passed=False,
        num_elements=num_elements,
        num_mismatched=num_elements if num_mismatched is None else num_mismatched,
        max_abs_diff=None,
        max_rel_diff=None,
        reason=reason,
    )
