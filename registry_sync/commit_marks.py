"""Remembers what was committed to DVC, so that a batch with nothing to commit need not load DVC to find out."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import yaml

from exporter.directory import ExportDirectory, hash_parts
from exporter.files import hash_file, read_json, write_json
from exporter.plain_data import DataError
from registry_sync.record import ExportRecord

__all__ = ["CommitMarks"]

# `${...}` in dvc.yaml stands for a model's name, or for part of one.
_TEMPLATE = re.compile(r"\$\{[^}]*\}")


class CommitMarks:
    """Hashes for each export, of its result and of what its stage depends on, as they were when it was committed.

    Those of stages are void once another has changed dvc.lock: `dvc repro`, or git. Losing the file costs one commit
    too many, never one too few.

    Args:
        repository: The DVC repository's root.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._file = repository / ".dvc" / "tmp" / "modelpress.json"
        try:
            known = read_json(self._file)
        except (OSError, DataError):
            known = None
        self._marks: dict[str, list[str]] = {}
        if isinstance(known, dict) and isinstance(known.get("marks"), dict):
            is_ours = known.get("lock") == self._hash_lock()
            self._marks = {name: mark for name, mark in known["marks"].items() if is_ours or _added(name).is_file()}

    def has(self, export: ExportRecord) -> bool:
        """Whether DVC has this export, whatever became of its config and code since."""
        return self._marks.get(export.directory, [""])[0] == _hash_result(export)

    def is_current(self, export: ExportRecord) -> bool:
        """Whether DVC has this export as made from the config and the code that are there now."""
        return self._marks.get(export.directory) == [_hash_result(export), self._dependencies]

    def update(self, exports: Iterable[ExportRecord]) -> None:
        """Remember that DVC has these, or cannot have them."""
        self._marks.update({export.directory: [_hash_result(export), self._dependencies] for export in exports})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, {"lock": self._hash_lock(), "marks": self._marks})

    def _hash_lock(self) -> str:
        places = {Path.cwd() / "dvc.lock", self._repository / "dvc.lock"}
        return hash_parts({str(path): hash_file(path) for path in places if path.is_file()})

    @cached_property
    def _dependencies(self) -> str:
        """Sizes and times of what the stages depend on; while these are the same, DVC does not look either."""
        here = Path.cwd()
        stats = {str(path): path.stat() for pattern in ("dvc.yaml", *_read_patterns()) for path in _find(here, pattern)}
        return hash_parts({name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()})


def _added(directory: str) -> Path:
    """What DVC writes of an export without a stage; there is none for others."""
    return Path(f"{directory}.dvc")


def _hash_result(export: ExportRecord) -> str:
    files = {"result": ExportDirectory(Path(export.directory)).result, "added": _added(export.directory)}
    return hash_parts({name: hash_file(path) for name, path in files.items() if path.is_file()})


def _read_patterns() -> Iterator[str]:
    """What dvc.yaml's stages name as deps and files of params; `*` for the names of models."""
    try:
        stages = yaml.load(Path("dvc.yaml").read_bytes(), Loader=yaml.CSafeLoader)["stages"].values()
        for stage in stages:
            described = stage.get("do", stage)
            for item in (*described.get("deps", ()), *described.get("params", ())):
                pattern = _TEMPLATE.sub("*", item if isinstance(item, str) else next(iter(item)))
                if pattern.strip("*/"):
                    yield pattern
    except (OSError, yaml.YAMLError, AttributeError, LookupError, TypeError):
        # DVC says what is wrong with it, to a batch that has something to commit.
        return


def _find(here: Path, pattern: str) -> Iterator[Path]:
    found = here.glob(pattern) if "*" in pattern and not Path(pattern).is_absolute() else [here / pattern]
    for path in found:
        inner = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (each for each in inner if each.is_file() and "__pycache__" not in each.parts)
