"""Holds what DVC's cache has of an export against the export's own record: DVC hands damage out without a word."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.directory import ExportDirectory
from exporter.files import read_json
from exporter.plain_data import DataError, from_plain
from exporter.result import ExportResult
from registry_sync.dvc_repository import DvcRepository

__all__ = ["CachedExport", "Damage", "find_cached_exports", "is_record"]

_RESULT = ExportDirectory(Path()).result.name
# What every version of it has.
_KEYS = {"schema_version", "spec", "status", "files"}
# The list of an output's files, which the cache has too.
_LIST = ""
# Of a hash; enough to find it again.
_PREFIX = 12


@dataclass(frozen=True)
class Damage:
    """A file whose bytes in the cache are not the recorded ones.

    Args:
        path: Where the file belongs in the working directory.
        place: The file in the cache.
        kind: Of hash: sha256 by our record, md5 by DVC's.
        expected: As recorded.
        found: Empty if the cache has no such file.
    """

    path: Path
    place: Path
    kind: str
    expected: str
    found: str

    def __str__(self) -> str:
        found = f"{self.kind} is {self.found[:_PREFIX]}" if self.found else "is missing"
        return (
            f"{_show(self.path)}: {found} in DVC's cache, {self.expected[:_PREFIX]} is recorded ({_show(self.place)})"
        )


@dataclass(frozen=True)
class CachedExport:
    """An export as DVC has it.

    Args:
        path: Where it belongs in the working directory.
        output: DVC's, which it is or is in.
        objects: The cache's files by the names in the export.
    """

    path: Path
    output: Any
    objects: Mapping[str, Path]

    def find_damage(self) -> Iterator[Damage]:
        """Hash each file: those of the model against result.json, the others against the name that DVC gave them."""
        # What says which files there are, and what is recorded of them. Damaged, it says nothing of the others.
        for name in (_LIST, _RESULT):
            place = self.objects.get(name)
            damage = self._check(name, place, "md5", _name_hash(place)) if place is not None else None
            if damage is not None:
                yield damage
                return
        result = self.objects.get(_RESULT)
        if result is None:
            # A folder with nothing in it.
            return
        try:
            files = {record.path: record.sha256 for record in from_plain(ExportResult, read_json(result)).files}
        except DataError:
            # Of a newer modelpress: DVC's hashes are what there is.
            files = {}
        for name, place in self.objects.items():
            recorded = files.get(name)
            if name in (_LIST, _RESULT):
                continue
            kind, expected = ("md5", _name_hash(place)) if recorded is None else ("sha256", recorded)
            damage = self._check(name, place, kind, expected)
            if damage is not None:
                yield damage
        for name in sorted(files.keys() - self.objects.keys()):
            yield Damage(self.path / name, self.path / name, "sha256", files[name], "")

    def _check(self, name: str, place: Path, kind: str, expected: str) -> Damage | None:
        found = ""
        if place.is_file():
            with place.open("rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
        return Damage(self.path / name, place, kind, expected, found) if found != expected else None

    @property
    def is_ours(self) -> bool:
        """Whether its result.json is one of ours, or cannot be told from one."""
        place = self.objects[_RESULT]
        return is_record(place) or self._check(_RESULT, place, "md5", _name_hash(place)) is not None

    @property
    def is_newer_outside(self) -> bool:
        """Whether the working directory has another export there than the cache."""
        own = self.path / _RESULT
        return own.is_file() and _RESULT in self.objects and own.read_bytes() != self.objects[_RESULT].read_bytes()


def find_cached_exports(repository: DvcRepository, outputs: Mapping[Path, list[Any]]) -> Iterator[CachedExport]:
    """The exports that the cache has, in part at least; a folder is one if it has a result.json of ours.

    So is a folder whose list or result.json is damaged: what is in it nobody knows. Others may be tracked too.
    """
    for path, (output, *_) in outputs.items():
        objects = repository.find_objects(output)
        for folder in sorted(
            str(PurePosixPath(name).parent) for name in objects if PurePosixPath(name).name == _RESULT
        ):
            prefix = "" if folder == "." else f"{folder}/"
            own = {name.removeprefix(prefix): place for name, place in objects.items() if name.startswith(prefix)}
            export = CachedExport(path / folder, output, {_LIST: objects[_LIST], **own})
            if export.is_ours:
                yield export
        if objects.keys() == {_LIST} and any((export := CachedExport(path, output, objects)).find_damage()):
            yield export


def is_record(place: Path) -> bool:
    """Whether a file is the result.json of an export, of whatever version; others use that name too."""
    try:
        data = read_json(place)
    except (OSError, DataError):
        return False
    return isinstance(data, dict) and data.keys() >= _KEYS


def _name_hash(place: Path) -> str:
    """The md5 that the cache's file is named by: two digits are its folder."""
    return (place.parent.name + place.name).removesuffix(".dir")


def _show(path: Path) -> str:
    return os.path.relpath(path)
