"""Versions of registered models: one for each LoggedModel, however often it is asked for.

Which models are registered, and which alias points where, is not decided here.
"""

import json

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from registry_sync.store import Store
from registry_sync.tags import MODEL_ID_TAG

__all__ = ["find_version", "register_version"]

# What MLflow's own page of a model reads the versions from; mlflow.register_model sets it too.
_VERSIONS_TAG = "mlflow.modelVersions"


def find_version(store: Store, name: str, model: LoggedModel) -> ModelVersion | None:
    """The version of a registered model that is this LoggedModel; the first of several."""
    return store.call(_find, store, name, model)


def register_version(store: Store, name: str, model: LoggedModel, tags: dict[str, str]) -> ModelVersion:
    """Register a LoggedModel, once; the registered model is created if it is missing.

    Args:
        store: Where the model is.
        name: Of the registered model: letters, digits, dot, dash and underscore.
        model: READY; see `registry_sync.logged_model.require_model`.
        tags: Of a new version; those of one that is there are left as they are.

    Raises:
        SyncError: MLflow did not take it.
    """

    def attempt() -> ModelVersion:
        # In every try: the one before may have been stored, and its reply lost.
        return _find(store, name, model) or _create(store, name, model, tags)

    version = store.call(attempt)
    listed = json.dumps([{"name": name, "version": str(version.version)}])
    if model.tags.get(_VERSIONS_TAG) != listed:
        store.call(store.client.set_logged_model_tags, model.model_id, {_VERSIONS_TAG: listed})
    return version


def _create(store: Store, name: str, model: LoggedModel, tags: dict[str, str]) -> ModelVersion:
    store.budget.require_left()
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    store.budget.require_left()
    return store.client.create_model_version(
        name,
        source=model.model_uri,
        run_id=model.source_run_id,
        tags={**tags, MODEL_ID_TAG: model.model_id},
        # The files are there: the model is READY.
        await_creation_for=0,
        model_id=model.model_id,
    )


def _find(store: Store, name: str, model: LoggedModel) -> ModelVersion | None:
    # MLflow's own field for it comes back empty from a database.
    found = [one for one in _search(store, name) if one.tags.get(MODEL_ID_TAG) == model.model_id]
    return min(found, key=lambda one: int(one.version), default=None)


def _search(store: Store, name: str) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token = None
    while True:
        page = store.client.search_model_versions(f"name = '{name}'", page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found
