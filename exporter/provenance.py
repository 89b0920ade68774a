"""Where an export comes from: what little of it goes into the model file, and the state of git for result.json.

Imports the standard library alone. Nothing here depends on the path, the user or the time: the model's bytes must not.
"""

import os
import subprocess

from exporter.directory import ExportDirectory, hash_parts
from exporter.plain_data import DataError
from exporter.result import Provenance
from exporter.spec import ModelSpec
from exporter.versions import library_versions

__all__ = ["COMMIT_VARIABLE", "model_properties", "read_commit", "read_provenance"]

# The commit, where this process runs on a copy of the project without its .git.
COMMIT_VARIABLE = "MODELPRESS_GIT_COMMIT"
_DIRTY = "-dirty"


def model_properties(model: ModelSpec, directory: ExportDirectory) -> dict[str, str]:
    """What the saved graph says of itself in `metadata_props`; the fingerprint only where a batch took one."""
    properties = {"modelpress.name": model.name, "modelpress.version": library_versions()["modelpress"]}
    fingerprint = _read_fingerprint(directory)
    return {**properties, "modelpress.fingerprint": fingerprint} if fingerprint else properties


def read_provenance(directory: ExportDirectory) -> Provenance:
    """The state of the working directory, and the fingerprint; what there is not is empty."""
    described = read_commit()
    return Provenance(
        git_commit=described.removesuffix(_DIRTY),
        git_dirty=described.endswith(_DIRTY),
        fingerprint=_read_fingerprint(directory),
    )


def read_commit() -> str:
    """The commit of the working directory, with `-dirty` where tracked files differ; empty outside of git."""
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607  (the user's git)
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _read_fingerprint(directory: ExportDirectory) -> str:
    try:
        return hash_parts(directory.read_fingerprint())
    except (OSError, DataError):
        return ""
