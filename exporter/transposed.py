"""Writes transposed initializers block by block, so that saving them takes no second copy of one.

Constant folding leaves the weight of each Linear with three-dimensional inputs as a transposed view of its memory,
or of the checkpoint's file. numpy writes such a view element by element; a contiguous copy would hold the whole
tensor in memory once more, and reading it through a map the whole file.
"""

import errno
import mmap
import os
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["write_transposed_by_blocks"]

_BLOCK_BYTES = 16 << 20


def write_transposed_by_blocks(model: ir.Model) -> None:
    """Let each initializer that is a large transposed matrix write itself in blocks; its bytes stay the same."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            array = getattr(tensor, "raw", None)
            # Four bits to an element are one byte in numpy.
            if tensor is None or not isinstance(array, np.ndarray) or array.nbytes != tensor.nbytes:
                continue
            if _is_large_transpose(array):
                value.const_value = _TransposedTensor(
                    array, tensor.dtype, shape=ir.Shape(array.shape), name=str(value.name)
                )


def _is_large_transpose(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.nbytes > _BLOCK_BYTES and array.T.flags.c_contiguous


class _TransposedTensor(ir.Tensor[NDArray[Any]]):
    """A matrix whose transpose lies in memory, or in a mapped file, row by row."""

    def tofile(self, file: Any) -> None:
        source = self.numpy().T
        width = source.shape[0] * source.itemsize
        file.flush()
        start = file.tell()
        rows = max(1, _BLOCK_BYTES // (source.shape[1] * source.itemsize))
        for first in range(0, source.shape[0], rows):
            block = np.ascontiguousarray(source[first : first + rows].T).view(np.uint8)
            for index, row in enumerate(block):
                place = start + index * width + first * source.itemsize
                if os.pwrite(file.fileno(), row.data, place) < row.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _forget_pages(source)
        file.seek(start + self.nbytes)


def _forget_pages(array: NDArray[Any]) -> None:
    """Give back the pages of a mapped file; they are read again where they are wanted."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    # Of a file that is only read; other memory has no second place to be read from.
    if isinstance(mapped, mmap.mmap) and array.flags.writeable is False:
        mapped.madvise(mmap.MADV_DONTNEED)
