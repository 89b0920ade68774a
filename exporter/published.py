"""What stands at an export's place in exports/: an export, the ruin of one, or what is not ours at all."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from exporter.directory import ExportDirectory, NewerSchemaError
from exporter.plain_data import DataError
from exporter.result import SCHEMA_VERSION, ExportResult
from exporter.versions import library_versions

__all__ = ["Published", "read_published"]

_ELSEWHERE = "or choose another place with output.exports=DIR"


@dataclass(frozen=True)
class Published:
    """One place in exports/, as far as it can be told without hashing."""

    directory: ExportDirectory
    # Why it must not be replaced, and what to do; empty if it may be.
    obstacle: str = ""
    # What its records lack, in a few words; empty if they are whole.
    lack: str = ""
    result: ExportResult | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)


def read_published(path: Path) -> Published:
    """Look at one place in exports/.

    An export is exchanged as a whole, and what stood there before is deleted. So what is not an export of ours is an
    obstacle, and so is what a newer modelpress made.
    """
    directory = ExportDirectory(path)
    if not os.path.lexists(path):
        return Published(directory, lack="new")
    try:
        if path.is_symlink() or not path.is_dir():
            kind = "a symbolic link" if path.is_symlink() else "a file"
            return Published(
                directory, f"{path}: is {kind}, where an export's directory has to be; move it, {_ELSEWHERE}"
            )
        if not any(path.iterdir()):
            return Published(directory, lack="new")
        if not _is_ours(directory):
            return Published(directory, f"{path}: holds files, and no export of modelpress's; move it, {_ELSEWHERE}")
        return _read_records(directory)
    except NewerSchemaError as error:
        writer = f" of modelpress {error.writer}" if error.writer else ""
        return Published(
            directory,
            f"{directory.result}: has schema_version {error.version}{writer}; modelpress "
            f"{library_versions()['modelpress']} reads {SCHEMA_VERSION}; upgrade modelpress, {_ELSEWHERE}",
        )
    except OSError as error:
        return Published(
            directory, f"{error.filename or path}: {error.strerror or error}; make it readable, {_ELSEWHERE}"
        )


def _read_records(directory: ExportDirectory) -> Published:
    lack = ""
    result, fingerprint = None, {}
    try:
        result = directory.read_result()
    except (FileNotFoundError, IsADirectoryError):
        lack = f"{directory.result.name} is missing"
    except NewerSchemaError:
        raise
    except DataError:
        lack = f"{directory.result.name} is broken"
    try:
        fingerprint = directory.read_fingerprint()
    except (FileNotFoundError, IsADirectoryError):
        lack = lack or f"{directory.fingerprint.name} is missing"
    except DataError:
        lack = lack or f"{directory.fingerprint.name} is broken"
    return Published(directory, lack=lack, result=result, fingerprint=fingerprint)


def _is_ours(directory: ExportDirectory) -> bool:
    """Whether a directory is an export, whole or broken: one of its records reads as ours, or two bear the names."""
    records = {directory.spec: "model", directory.result: "schema_version", directory.fingerprint: "code.modelpress"}
    there = [path for path in records if path.is_file()]
    return len(there) > 1 or any(_has_key(path, records[path]) for path in there)


def _has_key(path: Path, key: str) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(data, dict) and key in data
