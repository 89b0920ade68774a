"""Tensors on their way into ONNX Runtime and back, in every dtype that both sides have.

numpy has no bfloat16 and no float8; ml_dtypes, which onnx brings along, gives it both. A complex tensor is a real
one with a last axis of 2, as the exporter writes it into the graph.
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto

__all__ = ["run_session", "to_array", "to_ort_value", "to_tensor"]

# What numpy itself cannot say: torch's dtype, numpy's by way of ml_dtypes, and ONNX's number of it.
_EXTENDED: dict[torch.dtype, tuple[Any, int]] = {
    torch.bfloat16: (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    torch.float8_e4m3fn: (ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E4M3FN),
    torch.float8_e5m2: (ml_dtypes.float8_e5m2, TensorProto.FLOAT8E5M2),
}
_BY_NUMPY = {np.dtype(array_type): onnx_type for array_type, onnx_type in _EXTENDED.values()}
_BY_ONNX = {onnx_type: np.dtype(array_type) for array_type, onnx_type in _EXTENDED.values()}
_UNSIGNED = {1: np.uint8, 2: np.uint16}


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor as numpy, contiguous and of the same shape; complex ones get a last axis of 2."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    plain = plain.contiguous()
    if plain.dtype in _EXTENDED:
        bits = torch.int8 if plain.element_size() == 1 else torch.int16
        return plain.view(bits).numpy().view(_EXTENDED[plain.dtype][0])
    return plain.numpy()


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """An array as a tensor; their memory is shared. What was complex stays real, with its last axis of 2."""
    onnx_type = _BY_NUMPY.get(array.dtype)
    if onnx_type is None:
        return torch.from_numpy(array)
    dtype = next(dtype for dtype, (_, number) in _EXTENDED.items() if number == onnx_type)
    return torch.from_numpy(array.view(_UNSIGNED[array.itemsize])).view(dtype)


def run_session(session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a session on arrays; its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    values = session.run_with_ort_values(names, {name: to_ort_value(array) for name, array in feeds.items()})
    return {name: _to_numpy(value) for name, value in zip(names, values, strict=True)}


def to_ort_value(array: NDArray[Any]) -> ort.OrtValue:
    """An array as ONNX Runtime takes it; their memory is shared."""
    onnx_type = _BY_NUMPY.get(array.dtype)
    if onnx_type is None:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(_UNSIGNED[array.itemsize]), onnx_type)


def _to_numpy(value: ort.OrtValue) -> NDArray[Any]:
    extended = _BY_ONNX.get(value.element_type())
    if extended is None:
        return value.numpy()  # type: ignore[no-any-return]
    return to_array(torch.utils.dlpack.from_dlpack(value))
