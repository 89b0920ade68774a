"""What DVC calls the bytes of a release."""

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from registry_sync.dvc_repository import find_repository, told
from registry_sync.release_manifest import ReleasedModel

__all__ = ["add_dvc_hashes", "find_repository", "list_objects", "open_repository"]


def open_repository(root: Path) -> Any:
    """A `dvc.repo.Repo`, to be closed by the caller.

    Raises:
        SyncError: DVC cannot open it.
    """
    with told():
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)
        return Repo(str(root))


def add_dvc_hashes(models: Iterable[ReleasedModel], exports: Path) -> list[ReleasedModel]:
    """The models with the hash of what DVC has of them, where that is what lies in exports/ now.

    dvc.lock may be behind: DVC was locked, or the export has no stage. The cache's list of an output's files tells, and
    of these result.json is enough: it names all others by their sha256.

    Raises:
        SyncError: DVC cannot be asked.
    """
    root = find_repository()
    if root is None:
        return list(models)
    repository = open_repository(root)
    try:
        with told():
            known = {Path(out.fs_path): out.hash_info.value for out in repository.index.outs if out.hash_info}
            cache = repository.cache.local
        return [_add_hash(model, known.get((exports / model.id).resolve(), ""), cache, exports) for model in models]
    finally:
        repository.close()


def list_objects(cache: Any, value: str) -> dict[str, Path] | None:
    """The files of a directory in DVC's cache by their names in it, there or not; None where the list is not there.

    Raises:
        OSError, ValueError: The list is broken.
    """
    place = Path(cache.oid_to_path(value))
    if not place.is_file():
        return None
    entries = json.loads(place.read_bytes())
    return {entry["relpath"]: Path(cache.oid_to_path(entry["md5"])) for entry in entries}


def _add_hash(model: ReleasedModel, value: str, cache: Any, exports: Path) -> ReleasedModel:
    result = ExportDirectory(exports / model.id).result
    if model.failure is not None or not value.endswith(".dir"):
        return model
    try:
        listed = list_objects(cache, value) or {}
    except (OSError, ValueError):
        return model
    place = listed.get(result.name)
    is_current = place is not None and place.is_file() and place.read_bytes() == result.read_bytes()
    return replace(model, dvc_hash=value) if is_current else model
