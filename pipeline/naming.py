"""Names exports: the model's name, and behind it what the job overrides."""

import hashlib
import re
from collections.abc import Sequence

__all__ = ["name_export"]

# Settings of the run, not of the export: they leave its bytes and its verdict as they are.
_RUN_KEYS = ("model", "release", "executor", "tracking", "output", "hydra", "force", "explain", "status", "id")
_SHORT = {"opset_version": "opset", "precision": ""}
_MAX_LENGTH = 100


def name_export(model: str, overrides: Sequence[str]) -> str:
    """The id of an export: `mlp`, `mlp-opset18`, `mlp-opset18-fp16`, `mlp-seed_3`.

    An override of anything that decides the result is part of the id, so that a variant never replaces the
    model's own export. What does not fit a directory name is hashed.

    Args:
        model: The model's name.
        overrides: As on the command line, for example `["+model=mlp", "export.opset_version=18"]`.
    """
    parts = [part for override in sorted(item.lstrip("+~") for item in overrides) if (part := _name_override(override))]
    name = "-".join([model, *parts])
    return name if len(name) <= _MAX_LENGTH else f"{name[: _MAX_LENGTH - 9]}-{_hash(name)}"


def _name_override(override: str) -> str:
    key, _, value = override.partition("=")
    key = key.split("@")[0]
    is_run_key = key.split(".")[0].split("/")[0] in _RUN_KEYS
    # `model=bert` chooses the model; `model.seed=3` changes it.
    if is_run_key and not key.startswith("model."):
        return ""
    # A model's keys go deep, and the last part alone would give dims.batch.max and dims.seq.max one name.
    last = key.removeprefix("model.") if key.startswith("model.") else key.rsplit(".", 1)[-1]
    short = _SHORT.get(last, last)
    joint = "" if not short or (re.fullmatch(r"\d+", value) and last in _SHORT) else "_"
    # [fold_constants, cse] becomes fold_constants.cse: brackets and commas do not go into a directory's name.
    listed = re.fullmatch(r"\[([a-z_]+(?:, *[a-z_]+)*)\]", value)
    text = f"{short}{joint}{re.sub(r', *', '.', listed[1]) if listed else value}"
    return text if re.fullmatch(r"[A-Za-z0-9._-]+", text) and len(text) <= 40 else f"{last}_{_hash(override)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
