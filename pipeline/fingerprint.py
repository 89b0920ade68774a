"""What an export depends on, as named parts; two exports with equal parts need not both be made.

Never a modification time: a clone, a copy or a `touch` changes nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import exporter
from exporter.checkpoint import hash_weights
from exporter.directory import hash_file
from exporter.plain_data import flatten, to_plain
from exporter.spec import ExportSpec
from exporter.targets import collect_targets
from exporter.versions import library_versions
from pipeline.source_code import find_sources, find_target, is_installed

__all__ = ["explain_change", "take_fingerprint"]

_MAX_REASONS = 3


def take_fingerprint(spec: ExportSpec) -> dict[str, str]:
    """The parts, each with its value or its sha256.

    They are `spec.<key>`, `code.<file>`, `data.<file>` (of fills), `version.<library>` and `weights`.
    """
    parts = {f"spec.{key}": json.dumps(value) for key, value in flatten(to_plain(spec)).items()}
    parts |= {f"version.{name}": version for name, version in library_versions().items()}
    parts["code.modelpress"] = _hash_own_code()
    model, table = spec.model, spec.export.custom_translation_table
    for dotted in collect_targets([model.source, model.input_factory, model.constants, table]):
        parts.update(_code_parts(dotted))
    for path in sorted({item.fill.path for item in spec.model.inputs.values() if item.fill.path is not None}):
        if Path(path).is_file():
            parts[f"data.{path}"] = hash_file(Path(path))
    if spec.model.weights is not None and Path(spec.model.weights).is_file():
        parts["weights"] = hash_weights(Path(spec.model.weights))
    return parts


def explain_change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Why an export is made again, in a few words; empty if nothing changed."""
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    # A change of the config says more than the change of code that came with it.
    changed.sort(key=lambda key: ("spec.", "code.", "data.", "weights", "version.").index(_section(key)))
    reasons = [_explain_part(key, old.get(key), new.get(key)) for key in changed]
    more = f" and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
    return ", ".join(reasons[:_MAX_REASONS]) + more


def _section(key: str) -> str:
    return "weights" if key == "weights" else f"{key.partition('.')[0]}."


def _explain_part(key: str, old: str | None, new: str | None) -> str:
    section, _, name = key.partition(".")
    if section in ("code", "data"):
        return f"{section} changed: {Path(name).name}"
    if section == "weights":
        return "weights changed"
    last = name if section == "version" else name.rsplit(".", 1)[-1]
    return f"{last} {_show(old)} -> {_show(new)}"


def _show(value: str | None) -> str:
    return "nothing" if value is None else value.strip('"')[:40]


def _code_parts(dotted: str) -> Iterator[tuple[str, str]]:
    target = find_target(dotted)
    if target is None:
        return
    sources = find_sources(target)
    for name, path in sources.files.items():
        # Our own files are one part together, `code.modelpress`.
        if path.parent != Path(exporter.__file__).parent:
            yield f"code.{name}", hash_file(path)
    for package in sources.packages:
        version = _distribution_version(package)
        if version:
            yield f"version.{package}", version
        elif is_installed(target.path):
            # Installed, but by no distribution that says its version: its file has to speak for it.
            yield f"code.{target.module}", hash_file(target.path)


@cache
def _distribution_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # The package and its distribution may have different names; this look-up is slower.
        names = metadata.packages_distributions().get(package, [])
        return metadata.version(names[0]) if names else None


@cache
def _hash_own_code() -> str:
    """The exporter's own source, the zoo left out: each zoo model counts for itself."""
    package = Path(exporter.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
