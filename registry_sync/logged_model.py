"""Published exports as MLflow's LoggedModels: the same bytes as on disk, never loaded and never copied by us."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelStatus

from exporter.directory import ExportDirectory
from exporter.errors import IntegrityError, SyncError
from exporter.plain_data import DataError
from exporter.result import ExportResult
from registry_sync.keyed import Keyed
from registry_sync.mlmodel import write_model_files
from registry_sync.signature import make_signature
from registry_sync.store import Store
from registry_sync.tags import KEY_TAG, describe_model, hash_content

__all__ = ["find_model", "holds_result", "log_model", "require_model", "search_models"]

# Slower than this a store counts as stuck.
_SLOWEST_BYTES_PER_S = 10 * 2**20
# MLflow refuses these in the name of a LoggedModel; the tags have the true one.
_REFUSED = str.maketrans(dict.fromkeys("/:.%\"'", "_"))


def search_models(store: Store, tag: str, value: str) -> Keyed[LoggedModel]:
    """The models whose tag has this value, by their keys."""
    return Keyed(
        store,
        lambda: [(model.tags.get(KEY_TAG, ""), model) for model in _search(store, {tag: value})],
        lambda model: (model.status is not LoggedModelStatus.READY, model.model_id),
        lambda model: store.client.delete_logged_model(model.model_id),
    )


def find_model(store: Store, result: ExportResult) -> LoggedModel | None:
    """The model that holds the very bytes of an export, with whichever batch it was logged; the newest of several."""
    found = store.call(_search, store, {"modelpress.export": result.id, "modelpress.content": hash_content(result)})
    ready = [model for model in found if model.status is LoggedModelStatus.READY]
    return max(ready, key=lambda model: model.creation_timestamp, default=None)


def require_model(store: Store, directory: ExportDirectory, release: str | None = None) -> LoggedModel:
    """The model of a published export: the one that a batch has logged, or else a new one that belongs to no run.

    Raises:
        SyncError: MLflow did not take it, or a batch has replaced the export meanwhile.
        IntegrityError: The published bytes are not those that were proven.
        DataError, FileNotFoundError: The directory holds no result.
    """
    result = directory.read_result()
    found = find_model(store, result)
    if found is not None:
        return found
    key = f"{result.id}@{hash_content(result)}"
    models = search_models(store, KEY_TAG, key)
    tags = describe_model(result, directory, release=release)
    logged = log_model(store, models, directory, result, {**tags, KEY_TAG: key})
    models.remove_doubles()
    if logged is None:
        raise SyncError(f"{directory.path}: was replaced by another batch while it was logged; try again")
    return logged


def log_model(
    store: Store,
    models: Keyed[LoggedModel],
    directory: ExportDirectory,
    result: ExportResult,
    tags: dict[str, str],
    run_id: str | None = None,
) -> LoggedModel | None:
    """Log an export's files under the key among the tags, or find them there; what was cut off is done again.

    Args:
        store: Where to.
        models: What is there, searched for the key.
        directory: Of the export.
        result: Of the export; only the files it records are logged.
        tags: Of the new model, its key among them.
        run_id: Of the run that the model belongs to.

    Returns:
        None where another batch replaced the directory while it was read.

    Raises:
        SyncError: MLflow did not take it.
        IntegrityError: The bytes are not those that the result records.
    """
    known = models.find(tags[KEY_TAG])
    if known is not None and known.status is LoggedModelStatus.READY:
        return known
    recorded = directory.result.read_bytes()
    if damaged := directory.damaged_files(result):
        raise IntegrityError(f"{directory.path}: {', '.join(damaged)} not as recorded")
    signature, missing = make_signature(result)
    if missing:
        tags = {**tags, "modelpress.signature": missing}
    model = models.find_or_create(
        tags[KEY_TAG],
        lambda: store.client.create_logged_model(
            store.experiment_id,
            name=result.id.translate(_REFUSED),
            source_run_id=run_id,
            tags=tags,
            model_type="onnx",
        ),
    )
    # One file at a time and no folder of them: what is tried again is one file, and no link is needed to make one. A
    # second hard link, even for a moment, would make onnx refuse to load the published model.
    with tempfile.TemporaryDirectory(prefix="modelpress-") as folder:
        write_model_files(Path(folder), model.model_id, run_id, result, signature)
        _upload(store, model, sorted(Path(folder).iterdir()))
    for file in result.files:
        path = directory.path / file.path
        _open_to_readers(path, directory.result)
        store.budget.extend(file.size_bytes / _SLOWEST_BYTES_PER_S)
        _upload(store, model, [path])
    if _read(directory.result) != recorded:
        # The files may be those of two exports.
        store.call(store.client.delete_logged_model, model.model_id)
        return None
    return store.call(store.client.finalize_logged_model, model.model_id, "READY")


def holds_result(directory: ExportDirectory, result: ExportResult) -> bool:
    """Whether the directory still is that of this very export."""
    try:
        return directory.read_result() == result
    except (OSError, DataError):
        return False


def _upload(store: Store, model: LoggedModel, paths: Iterable[Path]) -> None:
    for path in paths:
        store.call(store.client.log_model_artifact, model.model_id, str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _search(store: Store, tags: dict[str, str]) -> list[LoggedModel]:
    condition = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found: list[LoggedModel] = []
    token = None
    while True:
        page = store.client.search_logged_models([store.experiment_id], filter_string=condition, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _open_to_readers(path: Path, example: Path) -> None:
    """Let those read a file who may read another: onnx writes external data for its owner alone, and copies stay so."""
    mode, wanted = path.stat().st_mode, example.stat().st_mode & 0o444
    if mode & wanted != wanted:
        path.chmod(mode | wanted)
