import hashlib

import pytest

from exporter.checkpoint import hash_weights
from pipeline.hashes import Hashes

LARGE = (20 << 20) + 3


@pytest.mark.parametrize("size", [0, 1, 1 << 20, LARGE])
def test_a_file_of_any_size_hashes_to_its_sha256(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    path = tmp_path / "file"
    path.write_bytes(content)
    hashes = Hashes()
    hashes.start(path)
    assert hashes.of_file(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_file_is_not_read_again(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    hashes = Hashes()
    before = hashes.of_file(path)
    path.unlink()
    hashes.start(path)
    assert hashes.of_file(path) == before


@pytest.mark.parametrize("size", [3, LARGE])
def test_the_shards_of_a_checkpoint_are_hashed_as_one(tmp_path, size):
    index = tmp_path / "w.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "w-1.safetensors", "b": "w-2.safetensors"}}')
    for number in (1, 2):
        (tmp_path / f"w-{number}.safetensors").write_bytes(bytes([number]) * size)
    hashes = Hashes()
    hashes.start_weights(index)
    assert hashes.of_weights(index) == hash_weights(index)


def test_what_cannot_be_read_is_told_when_it_is_asked_for(tmp_path):
    hashes = Hashes()
    hashes.start(tmp_path / "nowhere")
    hashes.start(tmp_path)
    with pytest.raises(FileNotFoundError):
        hashes.of_file(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        hashes.of_file(tmp_path)


def test_after_the_end_nothing_more_is_begun(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(LARGE))
    hashes = Hashes()
    hashes.close()
    with pytest.raises(RuntimeError):
        hashes.start(path)
