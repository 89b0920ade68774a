"""Which files a checkpoint is made of, where each tensor's bytes lie in them, and their sha256.

A checkpoint is one file, or an index (`model.safetensors.index.json`) beside its shards. No tensor is read here:
that is `exporter.weights`, with the safetensors library, whose API gives everything but the byte offsets.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.files import hash_file

__all__ = ["CheckpointError", "Place", "find_files", "hash_weights", "is_safetensors", "locate_tensors"]

INDEX_SUFFIX = ".index.json"
_SUFFIX = ".safetensors"
# The format's own limit: https://github.com/huggingface/safetensors#format
_MAX_HEADER_BYTES = 100_000_000


class CheckpointError(ValueError):
    """A checkpoint's files are missing, or do not say what they have to."""


@dataclass(frozen=True)
class Place:
    """Where one tensor's bytes lie."""

    path: Path
    offset: int
    num_bytes: int


def is_safetensors(path: Path) -> bool:
    """Whether the path names a safetensors file, or the index of several."""
    return path.name.endswith((_SUFFIX, INDEX_SUFFIX))


def find_files(path: Path) -> list[Path]:
    """The file itself, or an index followed by its shards in the order of their names.

    Raises:
        CheckpointError: The index is no index, or names a shard that is missing or lies elsewhere.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    return [path, *(path.parent / name for name in sorted(set(_read_index(path).values())))]


def hash_weights(path: Path, hash_one: Callable[[Path], str] = hash_file) -> str:
    """The sha256 of a checkpoint: of its file, or of what `sha256sum INDEX SHARDS...` prints in their directory.

    So every byte of every shard counts, and a user can compute it: `sha256sum m.safetensors.index.json
    m-*.safetensors | sha256sum`.

    Raises:
        CheckpointError: As `find_files`.
        OSError: A file cannot be read.
    """
    files = find_files(path)
    if len(files) == 1 and not path.name.endswith(INDEX_SUFFIX):
        return hash_one(path)
    listing = "".join(f"{hash_one(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def locate_tensors(path: Path) -> dict[str, Place]:
    """For each tensor of a safetensors checkpoint, the bytes that hold it.

    Raises:
        CheckpointError: A header is broken, points outside its file, or does not agree with the index.
        OSError: A file cannot be read.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return dict(_read_header(path))
    wanted = _read_index(path)
    found = {name: place for shard in find_files(path)[1:] for name, place in _read_header(shard)}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted or found[name].path.name != wanted[name]:
            says = f"in {wanted[name]}" if name in wanted else "nowhere"
            holds = found[name].path.name if name in found else "no shard"
            raise CheckpointError(f"{path}: {name!r} is {says}, says the index; {holds} holds it")
    return found


def _read_index(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{path}: has no weight_map, which says for each tensor in which shard it is")
    for shard in set(map(str, shards.values())):
        # An index is data from elsewhere: it must not make another file of this machine part of the model.
        if shard != os.path.basename(shard) or not shard.endswith(_SUFFIX):  # noqa: PTH119  (no path yet)
            raise CheckpointError(f"{path}: shard {shard!r} must be a {_SUFFIX} file in the index's own directory")
        if not (path.parent / shard).is_file():
            raise CheckpointError(f"{path}: there is no shard {shard!r} beside it")
    return {str(name): str(shard) for name, shard in shards.items()}


def _read_header(path: Path) -> Iterator[tuple[str, Place]]:
    """Eight bytes of length, then JSON, then the tensors' bytes, to which the offsets are relative."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path}: is no safetensors file: its header cannot have {length} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path}: is no safetensors file: its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: is no safetensors file: its header is no object")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        yield name, _read_place(path, name, entry, 8 + length, size)


def _read_place(path: Path, name: str, entry: Any, start: int, size: int) -> Place:
    try:
        begin, end = map(int, entry["data_offsets"])
        is_empty = math.prod(map(int, entry["shape"])) == 0
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the header's entry for {name!r} is broken: {entry!r:.80}") from error
    if not 0 <= begin <= end <= size - start or is_empty != (begin == end):
        raise CheckpointError(f"{path}: {name!r} is at bytes {begin} to {end} of {size - start}, says the header")
    return Place(path, start + begin, end - begin)
