"""What DVC has of the bytes of a release, and what dvc.lock says of them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.plain_data import DataError
from registry_sync.dvc_repository import DvcRepository, find_repository, open_repository
from registry_sync.release_manifest import ReleasedModel

__all__ = ["add_dvc_records", "has_result"]


def add_dvc_records(models: Iterable[ReleasedModel], exports: Path) -> list[ReleasedModel]:
    """The models with what DVC has of them, where that is what lies in exports/ now.

    dvc.lock may be behind: DVC was locked, or the batch was killed.

    Raises:
        SyncError: DVC cannot be asked.
    """
    if find_repository() is None:
        return list(models)
    with open_repository() as repository:
        outputs = repository.find_outputs()
        found = []
        for model in models:
            directory = ExportDirectory(exports / model.id)
            output, *_ = outputs.get(directory.path.resolve(), [None])
            if model.failure is None and output is not None and output.hash_info:
                value = str(output.hash_info.value)
                if has_result(repository, value, directory):
                    found.append(replace(model, dvc_hash=value, dvc_lock=repository.read_lock(output.stage)))
                    continue
            found.append(model)
        return found


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
