"""Remembers what was committed to DVC, so that a batch with nothing to commit need not load DVC to find out."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from exporter.directory import ExportDirectory, hash_file, hash_parts, read_json, write_json
from exporter.plain_data import DataError
from registry_sync.record import ExportRecord

__all__ = ["CommitMarks"]

# What the stages of dvc.yaml depend on, in the working directory.
_DEPENDENCIES = ("dvc.yaml", "exporter/**/*.py", "conf/**/*.yaml")


class CommitMarks:
    """A hash for each export, of its result and of what its stage depends on, as they were when it was committed.

    Losing the file costs one commit too many, never one too few.

    Args:
        repository: The DVC repository's root.
    """

    def __init__(self, repository: Path) -> None:
        self._file = repository / ".dvc" / "tmp" / "modelpress.json"
        try:
            marks = read_json(self._file)
        except (OSError, DataError):
            marks = {}
        self._marks: dict[str, str] = marks if isinstance(marks, dict) else {}

    def is_current(self, export: ExportRecord) -> bool:
        """Whether DVC has this export as it is now."""
        return self._marks.get(export.directory) == self._take(export)

    def update(self, exports: Iterable[ExportRecord]) -> None:
        """Remember that DVC has these, or has no stage for them."""
        self._marks.update({export.directory: self._take(export) for export in exports})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, self._marks)

    def _take(self, export: ExportRecord) -> str:
        result = ExportDirectory(Path(export.directory)).result
        content = hash_file(result) if result.is_file() else ""
        return hashlib.sha256(f"{content} {self._dependencies}".encode()).hexdigest()

    @cached_property
    def _dependencies(self) -> str:
        here = Path.cwd()
        paths = sorted(path for pattern in _DEPENDENCIES for path in here.glob(pattern) if path.is_file())
        return hash_parts({str(path.relative_to(here)): hash_file(path) for path in paths})
