"""Looks at what a stage of DVC's depends on: whether that is all, and whether the export was made from it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from exporter.plain_data import DataError
from registry_sync.record import ExportRecord

__all__ = ["find_changed_since", "find_unwatched"]

_MAX_NAMES = 5
_WEIGHTS = "spec.model.weights"


def find_changed_since(stage: Any, since: float) -> str:
    """The name of a file that the stage depends on and that was written later; empty if there is none.

    DVC hashes these files when it commits. Committed then, an export that was made from what they said before would
    pass for one that is up to date.
    """
    for dependency in stage.deps:
        path = Path(dependency.fs_path)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts and file.is_file() and file.stat().st_mtime > since:
                return os.path.relpath(file)
    return ""


def find_unwatched(export: ExportRecord, stage: Any) -> Iterator[str]:
    """A line for the user, if files of the project are in the export's fingerprint and not in the stage's deps.

    Args:
        export: One that is published.
        stage: DVC's, which produces it.
    """
    watched = [Path(dependency.fs_path) for dependency in stage.deps if dependency.protocol == "local"]
    unwatched = [
        name
        for name in _list_files(ExportDirectory(Path(export.directory)))
        if not any(Path(name).resolve().is_relative_to(path) for path in watched)
    ]
    if unwatched:
        names = ", ".join(unwatched[:_MAX_NAMES]) + (" ..." if len(unwatched) > _MAX_NAMES else "")
        yield f"DVC: dvc repro does not see changes of {names}; add to the deps of {stage.addressing} in dvc.yaml"


def _list_files(directory: ExportDirectory) -> list[str]:
    """The project's own files in a fingerprint, relative to the working directory."""
    try:
        parts = directory.read_fingerprint()
    except (OSError, DataError):
        return []
    names = {key.partition(".")[2] for key in parts if key.startswith(("code.", "data."))}
    if isinstance(weights := json.loads(parts.get(_WEIGHTS, "null")), str):
        names.add(weights)
    return sorted(name for name in names if Path(name).is_file() and Path(name).resolve().is_relative_to(Path.cwd()))
