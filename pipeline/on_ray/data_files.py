"""The files that specs name, as nodes hear of them: what each holds, and why one cannot be sent to a node."""

from functools import cache
from pathlib import Path

from exporter.checkpoint import CheckpointError
from exporter.directory import ExportDirectory
from exporter.files import hash_file
from exporter.plain_data import DataError
from pipeline.on_ray.messages import DataFile
from pipeline.on_ray.project import find_data, is_portable

__all__ = ["describe_data", "explain_refusal"]

# A larger file is better put where the nodes see it than sent to each of them, each time.
_MAX_SENT_BYTES = 1 << 30


def explain_refusal(file: DataFile, node: str) -> str:
    """Why a file cannot be sent to a node that lacks it; empty if it can.

    Args:
        file: As a parcel describes it.
        node: Its name.
    """
    where = f"{file.name}: {node} has no such file with the bytes that {file.place} has here"
    if not is_portable(file.name):
        return f"{where}; only files within the working directory, by a relative path, are sent to nodes"
    if file.size_bytes > _MAX_SENT_BYTES:
        size = f"{file.size_bytes / (1 << 30):.1f} GiB"
        return f"{where}; with {size} it is too large to be sent, put it where the nodes see it at the same path"
    return ""


def describe_data(directory: ExportDirectory) -> tuple[DataFile, ...]:
    """The files that a spec names; those that cannot be read are the worker's to complain of."""
    try:
        found = find_data(directory.read_spec(), Path.cwd())
        return tuple(_describe(name, path, *_stamp(path)) for name, path in found)
    except (OSError, CheckpointError, DataError):
        return ()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _describe(name: str, path: Path, size_bytes: int, _mtime_ns: int) -> DataFile:
    return DataFile(name, str(path), size_bytes, hash_file(path))
