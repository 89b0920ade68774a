"""Transposed matrices on disk: the bytes that numpy writes, with pages of mapped files given back."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from exporter import transposed
from exporter.transposed import write_transposed_by_blocks


def model_with(array, tensor=None):
    tensor = tensor or ir.Tensor(array, name="w")
    value = ir.Value(name="w", shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph = ir.Graph([], [], nodes=[], initializers=[value])
    return ir.Model(graph, ir_version=10), value


def written(path, value):
    """The bytes behind a first word that another tensor wrote, and in front of a last one."""
    with path.open("wb") as file:
        file.write(b"before")
        value.const_value.tofile(file)
        file.write(b"after")
    content = path.read_bytes()
    assert content.startswith(b"before")
    assert content.endswith(b"after")
    return content[6:-5]


@pytest.mark.parametrize("shape", [(8, 8), (3, 100), (100, 3), (1, 7), (97, 89)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, ir.DataType.BFLOAT16.numpy()])
@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_a_transposed_matrix_is_written_as_numpy_would(tmp_path, monkeypatch, shape, dtype, block):
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    monkeypatch.setattr(transposed, "_BLOCK_BYTES", block)
    array = np.arange(shape[0] * shape[1]).reshape(shape).astype(dtype).T
    model, value = model_with(array)
    before = value.const_value
    write_transposed_by_blocks(model)
    assert value.const_value is not before
    assert written(tmp_path / "w", value) == array.tobytes()
    assert value.const_value.tobytes() == array.tobytes()


def test_blocks_of_several_rows_meet_without_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    monkeypatch.setattr(transposed, "_BLOCK_BYTES", 4 * 10 * 3)
    array = np.random.default_rng(0).normal(size=(11, 10)).astype(np.float32).T
    model, value = model_with(array)
    write_transposed_by_blocks(model)
    assert written(tmp_path / "w", value) == array.tobytes()


def test_small_and_straight_tensors_stay_as_they_are(monkeypatch):
    small = np.ones((3, 5), np.float32).T
    model, value = model_with(small)
    before = value.const_value
    write_transposed_by_blocks(model)
    assert value.const_value is before
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    for array in (np.ones((3, 5), np.float32), np.ones((2, 3, 5), np.float32).T, np.ones((6, 5), np.float32)[::2].T):
        model, value = model_with(array)
        before = value.const_value
        write_transposed_by_blocks(model)
        assert value.const_value is before


def test_a_view_of_a_mapped_file_is_read_again_after_its_pages_were_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    monkeypatch.setattr(transposed, "_BLOCK_BYTES", 4096)
    content = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    (tmp_path / "file").write_bytes(b"xyz_" + content.tobytes())
    external = ir.ExternalTensor(
        str(tmp_path / "file"), 4, content.nbytes, ir.DataType.FLOAT, shape=ir.Shape([300, 200]), name="w"
    )
    array = external.numpy().T
    model, value = model_with(array)
    write_transposed_by_blocks(model)
    assert written(tmp_path / "w", value) == content.T.tobytes()
    assert np.array_equal(array, content.T)


def test_memory_that_is_no_file_is_never_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    monkeypatch.setattr(transposed, "_BLOCK_BYTES", 4096)
    weight = torch.randn(300, 200)
    expected = weight.numpy().T.tobytes()
    model, value = model_with(weight.numpy().T)
    write_transposed_by_blocks(model)
    assert written(tmp_path / "w", value) == written(tmp_path / "w", value) == expected


def test_a_full_disk_is_an_error_and_no_short_file(tmp_path, monkeypatch):
    monkeypatch.setattr(transposed, "_MIN_BYTES", 1)
    monkeypatch.setattr(transposed.os, "pwrite", lambda *arguments: 0)
    model, value = model_with(np.ones((3, 5), np.float32).T)
    write_transposed_by_blocks(model)
    with (tmp_path / "w").open("wb") as file, pytest.raises(OSError, match="No space left"):
        value.const_value.tofile(file)
