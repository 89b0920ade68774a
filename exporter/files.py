"""Files that a reader sees whole or not at all, and what tells one from another: their hashes."""

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter.plain_data import DataError, to_plain

__all__ = ["hash_file", "read_json", "remove_cut_off", "sync", "write_json", "write_text"]

_PIECE_BYTES = 1 << 20
# What `write_text` calls the file that it writes before it renames it.
_CUT_OFF = re.compile(r"\..+\.(json|html)\.\d+")


def hash_file(path: Path, piece_bytes: int = _PIECE_BYTES) -> str:
    """The sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(piece_bytes):
            digest.update(piece)
    return digest.hexdigest()


def write_text(path: Path, text: str, *, is_durable: bool = False) -> None:
    """Write a text so that a reader sees the old file or the new one, never a part.

    Args:
        path: Of the file, which is replaced.
        text: Of it, in UTF-8.
        is_durable: It also survives a power failure from here on; costs two waits for the disk.

    Raises:
        OSError: The disk would not; it names `path`, and the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if is_durable:
            sync(path.parent)
    except OSError as error:
        # The system names the temporary file, or none at all.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, is_durable: bool = False) -> None:
    """Write plain data by `write_text`.

    Args:
        path: Of the file, which is replaced.
        value: Dataclasses, enums and what JSON has.
        is_durable: It also survives a power failure from here on.

    Raises:
        OSError: The disk would not.
    """
    text = json.dumps(to_plain(value), indent=2, sort_keys=False, allow_nan=False) + "\n"
    write_text(path, text, is_durable=is_durable)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error


def remove_cut_off(folder: Path) -> None:
    """Remove what a process that was killed in `write_text` has left in a folder."""
    for path in folder.iterdir():
        if _CUT_OFF.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on the disk.

    Raises:
        OSError: They are not; it names the path.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)
