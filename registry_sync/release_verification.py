"""Hashes releases again: their own files, and what exports/ and DVC's cache have of their bytes.

Bytes that are nowhere on this machine are no damage: exports/ moves on, and a fresh checkout has no cache.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from exporter.errors import IntegrityError, SyncError
from exporter.files import hash_file
from exporter.plain_data import DataError
from registry_sync.dvc_repository import DvcRepository, find_repository, open_repository
from registry_sync.release_manifest import Manifest, ReleaseDirectory
from registry_sync.release_signature import verify_release
from registry_sync.release_workspace import Wanted, is_in_place
from registry_sync.release_writer import list_sums

__all__ = ["verify_releases"]

# Standard error shall stay under 15 lines.
_MAX_DAMAGE = 8


@dataclass
class _Count:
    """Where the bytes of a release's models were found whole."""

    in_exports: int = 0
    in_cache: int = 0
    elsewhere: int = 0
    damaged: list[str] = field(default_factory=list)

    def describe(self) -> str:
        parts = {"in exports": self.in_exports, "in DVC's cache": self.in_cache, "not on this machine": self.elsewhere}
        return ", ".join(f"{number} {place}" for place, number in parts.items() if number) or "no models"


class _Cache:
    """DVC's cache. Most releases share most files, so that each is hashed once."""

    def __init__(self, repository: DvcRepository) -> None:
        self._repository = repository
        self._hash = cache(hash_file)

    def find_damage(self, wanted: Wanted) -> list[str] | None:
        """The files of an export, by their names in it, that are not as released; None where some are not there."""
        try:
            places = self._repository.list_folder(wanted.model.dvc_hash)
        except (DataError, SyncError) as error:
            return [str(error)]
        if places is None:
            return None
        there = {file: place for file in wanted.model.files if (place := places.get(file.path)) and place.is_file()}
        damaged = [file.path for file, place in there.items() if self._hash(place) != file.sha256]
        return damaged if damaged or len(there) == len(wanted.model.files) else None


def verify_releases(root: Path, public_key: Path | None = None) -> Iterator[str]:
    """Hash every file of every release; damage is told at the end, after all were read.

    Args:
        root: Where releases are.
        public_key: Each has to be signed with its private key, too.

    Raises:
        IntegrityError: Something is not as released.
        ConfigError: The key is none.
    """
    directories = [one for one in map(ReleaseDirectory, sorted(root.glob("[!.]*"))) if one.is_release]
    if not directories:
        return
    damage: list[str] = []
    with ExitStack() as stack:
        cached = None
        try:
            cached = _Cache(stack.enter_context(open_repository())) if find_repository() is not None else None
        except SyncError as error:
            yield f"DVC's cache was not looked at: {error}"
        for directory in directories:
            found, words = _verify(directory, cached, public_key)
            damage += [f"{directory.path}: {one}" for one in found]
            if not found:
                yield f"{directory.path}: ok, {words}"
    if damage:
        more = [f"and {len(damage) - _MAX_DAMAGE} more"] if len(damage) > _MAX_DAMAGE else []
        raise IntegrityError("\n".join([*damage[:_MAX_DAMAGE], *more]))


def _verify(directory: ReleaseDirectory, cached: _Cache | None, public_key: Path | None) -> tuple[list[str], str]:
    try:
        manifest = directory.read_manifest()
    except (OSError, DataError) as error:
        return [f"no readable manifest.json ({error})"], ""
    damage = _check_own_files(directory, manifest)
    if public_key is not None:
        try:
            verify_release(directory, public_key)
        except IntegrityError as error:
            damage.append(str(error).removeprefix(f"{directory.path}: "))
    count = _Count()
    for model in manifest.models:
        if model.failure is None:
            _look_for(Wanted(manifest, model), cached, count)
    return damage + count.damaged, count.describe()


def _check_own_files(directory: ReleaseDirectory, manifest: Manifest) -> list[str]:
    """SHA256SUMS against what lies beside it, and against the manifest."""
    try:
        recorded = set(directory.sums.read_text(encoding="utf-8").splitlines(keepends=True))
    except (OSError, ValueError) as error:
        return [f"no readable {directory.sums.name} ({error})"]
    expected = set(list_sums(directory, directory, manifest))
    names = {line.split("  ", 1)[-1].strip() for line in recorded ^ expected}
    if any(Path(name).name == directory.manifest.name for name in names):
        # It cannot say anything of the others.
        names = {directory.manifest.name}
    return [f"{Path(name).name}: not as in {directory.sums.name}" for name in sorted(names)]


def _look_for(wanted: Wanted, cached: _Cache | None, count: _Count) -> None:
    is_in_exports = is_in_place(wanted)
    damaged = cached.find_damage(wanted) if cached is not None and wanted.model.dvc_hash else None
    if damaged:
        count.damaged.append(f"{wanted.model.id}: DVC's cache has other bytes: {', '.join(damaged[:5])}")
    elif is_in_exports:
        count.in_exports += 1
    elif damaged is None:
        count.elsewhere += 1
    else:
        count.in_cache += 1
