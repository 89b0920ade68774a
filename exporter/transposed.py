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

_MIN_BYTES = 64 << 10
_BLOCK_BYTES = 16 << 20


def write_transposed_by_blocks(model: ir.Model) -> None:
    """Let each initializer that is a transposed matrix write itself in blocks; its bytes stay the same."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            array = getattr(tensor, "raw", None)
            # Four bits to an element are one byte in numpy.
            if tensor is None or not isinstance(array, np.ndarray) or array.nbytes != tensor.nbytes:
                continue
            if _is_transposed_matrix(array):
                value.const_value = _TransposedTensor(
                    array, tensor.dtype, shape=ir.Shape(array.shape), name=str(value.name)
                )


def _is_transposed_matrix(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.nbytes > _MIN_BYTES and array.T.flags.c_contiguous


class _TransposedTensor(ir.Tensor[NDArray[Any]]):
    """A matrix whose transpose lies in memory, or in a mapped file, row by row."""

    def tofile(self, file: Any) -> None:
        source = self.numpy().T
        width = source.shape[0] * source.itemsize
        file.flush()
        start = file.tell()
        num_rows = max(1, _BLOCK_BYTES // (source.shape[1] * source.itemsize))
        for first in range(0, source.shape[0], num_rows):
            block = np.ascontiguousarray(source[first : first + num_rows].T).view(np.uint8)
            place = start + first * source.itemsize
            # What is the whole matrix lies in the file as it lies here; of less, each row has a place of its own.
            rows = [block.reshape(-1)] if num_rows >= source.shape[0] else block
            for index, row in enumerate(rows):
                _write_at(file.fileno(), row, place + index * width)
            _forget_pages(source)
        file.seek(start + self.nbytes)


def _write_at(file: int, data: NDArray[np.uint8], place: int) -> None:
    # A regular file takes less than it is given where there is no more room; the kernel's limit is 2 GiB a call.
    for first in range(0, data.nbytes, _BLOCK_BYTES):
        piece = data[first : first + _BLOCK_BYTES]
        if os.pwrite(file, piece.data, place + first) < piece.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _forget_pages(array: NDArray[Any]) -> None:
    """Give back the pages of a mapped file; they are read again where they are wanted."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    # Of a file that is only read; other memory has no second place to be read from.
    if isinstance(mapped, mmap.mmap) and array.flags.writeable is False:
        mapped.madvise(mmap.MADV_DONTNEED)
