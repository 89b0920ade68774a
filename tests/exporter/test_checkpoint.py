"""What a checkpoint's files are, where its tensors lie in them, and its sha256."""

import json
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.checkpoint import CheckpointError, find_files, hash_weights, is_safetensors, locate_tensors
from exporter.files import hash_file

INDEX = "m.safetensors.index.json"
SHARDS = {
    "m-1.safetensors": {"a": torch.arange(6.0).reshape(2, 3)},
    "m-2.safetensors": {"b": torch.ones(3), "c": torch.zeros(0)},
}


@pytest.fixture
def sharded(tmp_path):
    for shard, tensors in SHARDS.items():
        save_file(tensors, tmp_path / shard)
    return write_index(tmp_path, {name: shard for shard, tensors in SHARDS.items() for name in tensors})


def write_index(directory, weight_map):
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory / INDEX


def complaint(function, path):
    with pytest.raises(CheckpointError) as caught:
        function(path)
    assert str(caught.value).startswith(str(path.parent))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "ok"), [("m.safetensors", True), (INDEX, True), ("m.pt", False), ("m.bin", False), ("safetensors", False)]
)
def test_safetensors_are_told_by_their_names(tmp_path, name, ok):
    assert is_safetensors(tmp_path / name) is ok


def test_the_places_are_those_of_the_bytes(sharded):
    places = locate_tensors(sharded)
    assert sorted(places) == ["a", "b", "c"]
    for shard, tensors in SHARDS.items():
        for name, tensor in tensors.items():
            place = places[name]
            assert place.path == sharded.parent / shard
            content = place.path.read_bytes()[place.offset : place.offset + place.num_bytes]
            assert content == tensor.numpy().tobytes()


def test_a_single_file_is_its_own_and_only_file(sharded):
    path = sharded.parent / "m-1.safetensors"
    assert find_files(path) == [path]
    assert hash_weights(path) == hash_file(path)
    assert list(locate_tensors(path)) == ["a"]


def test_the_hash_of_shards_is_what_the_documented_command_prints(sharded):
    assert find_files(sharded) == [sharded, sharded.parent / "m-1.safetensors", sharded.parent / "m-2.safetensors"]
    command = f"sha256sum {INDEX} m-*.safetensors | sha256sum"
    done = subprocess.run(command, shell=True, cwd=sharded.parent, capture_output=True, text=True, check=True)
    assert hash_weights(sharded) == done.stdout.split()[0]


@pytest.mark.parametrize("name", [INDEX, *SHARDS])
def test_one_byte_of_any_file_changes_the_hash(sharded, name):
    before = hash_weights(sharded)
    content = (sharded.parent / name).read_bytes()
    # The last byte of a shard is a tensor's; an index may end in a space.
    (sharded.parent / name).write_bytes(content + b" " if name == INDEX else content[:-1] + bytes([content[-1] ^ 1]))
    assert hash_weights(sharded) != before


@pytest.mark.parametrize(
    "shard", ["../m-1.safetensors", "/etc/m-1.safetensors", "x/../m-1.safetensors", "", ".", "..", "m-1.bin"]
)
def test_a_shard_cannot_lie_elsewhere(sharded, shard):
    write_index(sharded.parent, {"a": shard})
    assert f"shard {shard!r} must be a .safetensors file in the index's own directory" in complaint(find_files, sharded)


def test_a_missing_shard_is_named(sharded):
    (sharded.parent / "m-2.safetensors").unlink()
    assert "there is no shard 'm-2.safetensors' beside it" in complaint(find_files, sharded)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": [1]}'])
def test_what_is_no_index_is_refused(sharded, content):
    sharded.write_bytes(content)
    complaint(find_files, sharded)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "m-1.safetensors", "b": "m-2.safetensors"}, "'c' is nowhere, says the index; m-2.safetensors holds it"),
        (
            {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"},
            "'a' is in m-2.safetensors, says the index; m-1.safetensors holds it",
        ),
        (
            {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors", "d": "m-1.safetensors"},
            "'d' is in m-1.safetensors, says the index; no shard holds it",
        ),
    ],
)
def test_an_index_and_its_shards_have_to_agree(sharded, weight_map, message):
    write_index(sharded.parent, weight_map)
    assert message in complaint(locate_tensors, sharded)


def test_the_format_is_read_as_the_library_reads_it(tmp_path):
    tensors = {
        "h": torch.ones(3, dtype=torch.bfloat16),
        "d": torch.ones(2, 2, dtype=torch.float64),
        "e": torch.tensor(7),
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    places = locate_tensors(tmp_path / "m.safetensors")
    read = load_file(tmp_path / "m.safetensors")
    assert {name: place.num_bytes for name, place in places.items()} == {k: t.nbytes for k, t in read.items()}


def with_header(path, header, size=8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"no json",
        [],
        {"a": 1},
        {"a": {"shape": [1]}},
        {"a": {"shape": [1], "data_offsets": [0]}},
        {"a": {"shape": [1], "data_offsets": [0, 9]}},
        {"a": {"shape": [1], "data_offsets": [-4, 4]}},
        {"a": {"shape": [1], "data_offsets": [4, 0]}},
        {"a": {"shape": [1], "data_offsets": [4, 4]}},
        {"a": {"shape": ["x"], "data_offsets": [0, 4]}},
    ],
)
def test_a_header_that_points_anywhere_else_is_refused(tmp_path, header):
    complaint(locate_tensors, with_header(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"\1", (2**40).to_bytes(8, "little") + b"{}"])
def test_a_file_without_room_for_its_header_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    complaint(locate_tensors, tmp_path / "m.safetensors")
