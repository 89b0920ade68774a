"""What DVC has of the bytes of a release, and what dvc.lock says of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from exporter.plain_data import DataError
from registry_sync.dvc_repository import DvcRepository, find_repository, open_repository
from registry_sync.release_manifest import ReleasedModel

__all__ = ["add_dvc_records", "has_result"]


def add_dvc_records(models: Iterable[ReleasedModel], exports: Path) -> list[ReleasedModel]:
    """The models with what DVC calls what lies in exports/ now, and with what dvc.lock says of it.

    dvc.lock may be behind: DVC was locked, or git's ignores are in its way. A manifest never changes, and `sync`
    commits these very bytes later, so they have the hash already by which they will be found then.

    Raises:
        SyncError: DVC cannot be asked.
    """
    if find_repository() is None:
        return list(models)
    with open_repository() as repository:
        outputs = repository.find_outputs()
        return [
            model
            if model.failure is not None
            else _add(repository, outputs, model, ExportDirectory(exports / model.id))
            for model in models
        ]


def _add(
    repository: DvcRepository, outputs: Mapping[Path, list[Any]], model: ReleasedModel, directory: ExportDirectory
) -> ReleasedModel:
    place = directory.path.resolve()
    output, *_ = outputs.get(place, [None])
    if output is not None and output.hash_info:
        value = str(output.hash_info.value)
        if has_result(repository, value, directory):
            return replace(model, dvc_hash=value, dvc_lock=repository.read_lock(output.stage))
    # DVC has neither what is outside nor, by itself, a part of a folder that it tracks.
    if not place.is_relative_to(repository.root) or any(parent in outputs for parent in place.parents):
        return model
    return replace(model, dvc_hash=repository.hash_folder(place))


def has_result(repository: DvcRepository, value: str, directory: ExportDirectory) -> bool:
    """Whether the cache has an export as it is: result.json is enough, which names all others by their sha256.

    Args:
        repository: With the cache.
        value: The hash under which DVC has, or may have, the directory.
        directory: Of the export.
    """
    if not value.endswith(".dir"):
        return False
    try:
        place = (repository.list_folder(value) or {}).get(directory.result.name)
        return place is not None and place.is_file() and place.read_bytes() == directory.result.read_bytes()
    except (OSError, DataError):
        return False
