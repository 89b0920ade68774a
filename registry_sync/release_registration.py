"""A release in MLflow's registry: each model a version, and the alias `candidate` on those that were accepted.

Can be repeated: a version is made once for each LoggedModel, tags and aliases are set to what they are.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from exporter.directory import ExportDirectory
from exporter.errors import SyncError
from exporter.plain_data import DataError
from registry_sync.logged_model import require_model
from registry_sync.registered_version import register_version
from registry_sync.release_manifest import Manifest, Registration, ReleaseDirectory, ReleasedModel, Verdict
from registry_sync.store import Store

__all__ = ["CANDIDATE", "add_mlflow_ids", "name_membership", "name_registered", "register_release"]

CANDIDATE = "candidate"
# MLflow refuses these in the name of a registered model, and in that of a tag.
_REFUSED = re.compile(r"[^A-Za-z0-9._-]")


def name_registered(export_id: str) -> str:
    """The registered model of an export: its id."""
    return _REFUSED.sub("_", export_id)


def name_membership(manifest: Manifest) -> str:
    """The tag by which a version says that it is in a release."""
    return f"modelpress.in.{_REFUSED.sub('_', manifest.title)}"


def add_mlflow_ids(store: Store, manifest: Manifest) -> Manifest:
    """The manifest with its LoggedModels, which are made where no batch has logged them, and the batch's run.

    Raises:
        SyncError: MLflow did not take it.
    """
    models = []
    for model in manifest.models:
        if model.failure is not None:
            models.append(model)
            continue
        logged = require_model(store, ExportDirectory(Path(manifest.exports) / model.id), manifest.name)
        run_id = logged.source_run_id or ""
        models.append(replace(model, mlflow_model_id=logged.model_id, mlflow_run_id=run_id))
    return replace(manifest, models=models)


def register_release(store: Store, directory: ReleaseDirectory, manifest: Manifest, *, is_newest: bool) -> Registration:
    """Register what a release has of models that passed, and remember that it is done.

    Args:
        store: Where to.
        directory: Of the release.
        manifest: Of the release.
        is_newest: Only then does `candidate` move.

    Raises:
        SyncError: MLflow did not take it, or the bytes are nowhere to be had.
        IntegrityError: The published bytes are not those that were proven.
    """
    names, versions = {}, {}
    for model in manifest.models:
        if model.failure is not None:
            continue
        name = name_registered(model.id)
        logged = _find_logged(store, manifest, model)
        version = register_version(store, name, logged, _describe_version(manifest, model))
        number = str(version.version)
        # A version may be in several releases: an export that was up to date.
        tag = name_membership(manifest)
        store.call(store.client.set_model_version_tag, name, number, tag, model.verdict.words)
        store.call(store.client.set_registered_model_tag, name, "modelpress.release", manifest.name)
        if is_newest and model.verdict is Verdict.accepted:
            store.call(store.client.set_registered_model_alias, name, CANDIDATE, number)
        names[model.id], versions[model.id] = name, number
    done = Registration(
        registered_at=datetime.now(UTC).isoformat(timespec="milliseconds"), names=names, versions=versions
    )
    with store.budget.waited_for():
        directory.write_registration(done)
    return done


def _describe_version(manifest: Manifest, model: ReleasedModel) -> dict[str, str]:
    tags = {
        "modelpress.release": manifest.name,
        "modelpress.release_version": manifest.version,
        "modelpress.export": model.id,
        "modelpress.verdict": model.verdict.words,
        "modelpress.git_commit": model.git_commit,
        "modelpress.dvc_hash": model.dvc_hash,
        "modelpress.fingerprint": model.fingerprint,
        **{f"modelpress.sha256.{file.path}": file.sha256 for file in model.model_files},
    }
    return {name: value for name, value in tags.items() if value}


def _find_logged(store: Store, manifest: Manifest, model: ReleasedModel) -> LoggedModel:
    """The LoggedModel with a released model's bytes; made from exports/ while these are still there."""
    found = store.call(_get_logged, store, model.mlflow_model_id) if model.mlflow_model_id else None
    if found is not None:
        return found
    export = ExportDirectory(Path(manifest.exports) / model.id)
    try:
        result = export.read_result()
    except (OSError, DataError) as error:
        raise SyncError(f"neither MLflow nor {export.path}/ has the bytes of {model.id}: {error}") from error
    released = {file.path: file.sha256 for file in model.files}
    if any(released.get(file.path) != file.sha256 for file in result.files):
        raise SyncError(
            f"MLflow does not have the bytes of {model.id}, and {export.path}/ has others by now; "
            f"python -m registry_sync checkout {manifest.name} --release {manifest.version}"
        )
    return require_model(store, export, manifest.name)


def _get_logged(store: Store, model_id: str) -> LoggedModel | None:
    try:
        return store.client.get_logged_model(model_id)
    except MlflowException as error:
        # Somebody has deleted it.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
