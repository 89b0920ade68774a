"""The inputs and outputs of an export in MLflow's words, as far as MLflow has words for them."""

from collections.abc import Sequence

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from exporter.result import ExportResult, TensorRecord

__all__ = ["make_signature"]

# What numpy can name without further libraries, and therefore everybody who reads the signature. bfloat16 and the
# 8-bit floats are not among them.
_DTYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)


def make_signature(result: ExportResult) -> tuple[ModelSignature | None, str]:
    """The signature, symbolic axes as -1, and what it lacks and why; empty where it lacks nothing.

    A side with one tensor that cannot be expressed is left out as a whole: MLflow drops inputs that a signature does
    not name before they reach the model.
    """
    inputs, missing_inputs = _make_schema("inputs", result.inputs)
    outputs, missing_outputs = _make_schema("outputs", result.outputs)
    missing = "; ".join(reason for reason in (missing_inputs, missing_outputs) if reason)
    if inputs is None and outputs is None:
        return None, missing
    return ModelSignature(inputs=inputs, outputs=outputs), missing


def _make_schema(side: str, tensors: Sequence[TensorRecord]) -> tuple[Schema | None, str]:
    if not tensors:
        return None, f"no {side}: the model has none"
    strange = sorted({f"{tensor.name} is {tensor.dtype}" for tensor in tensors if tensor.dtype not in _DTYPES})
    if strange:
        return None, f"no {side}: {', '.join(strange[:5])}, which MLflow cannot express"
    return Schema([_make_tensor(tensor) for tensor in tensors]), ""


def _make_tensor(tensor: TensorRecord) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
    return TensorSpec(np.dtype(tensor.dtype), shape, tensor.name)
