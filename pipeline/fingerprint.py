"""What an export depends on, as named parts; two exports with equal parts need not both be made.

Never a modification time: a clone, a copy or a `touch` changes nothing.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path

import exporter
from exporter.plain_data import flatten, to_plain
from exporter.spec import ExportSpec
from exporter.targets import collect_targets
from exporter.versions import library_versions
from pipeline.hashes import Hashes
from pipeline.source_code import find_sources, find_target, is_installed, is_modelpress

__all__ = ["Fingerprint", "explain_change", "start_fingerprint", "take_fingerprint"]

_MAX_REASONS = 3
# A change of the config says more than the change of code that came with it.
_SECTIONS = ("spec", "code", "data", "weights", "env", "version")

# Switches of torch's and onnxscript's that change what is captured or translated. Left out on purpose: what is only
# printed or cached, hash seeds and numbers of threads, which leave the bytes as they are, and where files are kept.
_SWITCH_PREFIXES = ("TORCH_ONNX_", "TORCHLIB_")
_SWITCHES = (
    "TORCHDYNAMO_CAPTURE_DYNAMIC_OUTPUT_SHAPE_OPS",
    "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS",
    "TORCHDYNAMO_NO_DATA_DEPENDENT_GRAPH_BREAK",
    "TORCH_COMPILE_DISABLE",
    "TORCH_DYNAMO_AUTOMATIC_DYNAMIC_SHAPES",
    "TORCH_DYNAMO_DO_NOT_EMIT_RUNTIME_ASSERTS",
    # Which kernels torch runs: they round otherwise, in folded constants and in parity.
    "ATEN_CPU_CAPABILITY",
    "NVIDIA_TF32_OVERRIDE",
)


@dataclass(frozen=True)
class Fingerprint:
    """The parts that are known, and those for which a large file is still being hashed."""

    parts: dict[str, str]
    late: dict[str, Callable[[], str]]

    def differs_from(self, recorded: Mapping[str, str]) -> bool:
        """Whether a part that is known already is another than the recorded one."""
        early = {key: value for key, value in recorded.items() if key not in self.late}
        return early != self.parts

    def finish(self) -> dict[str, str]:
        """All parts, once the large files are hashed."""
        return self.parts | {key: hash_it() for key, hash_it in self.late.items()}


def take_fingerprint(spec: ExportSpec) -> dict[str, str]:
    """The parts, each with its value or its sha256."""
    return start_fingerprint(spec, Hashes()).finish()


def start_fingerprint(spec: ExportSpec, hashes: Hashes) -> Fingerprint:
    """The parts, without waiting for the checkpoint to be hashed.

    They are `spec.<key>`, `code.<file>`, `data.<file>` (of fills, and files and folders that the config names to the
    model), `weights`, `env.<variable>` and `version.<library>`.
    """
    parts = {f"spec.{key}": json.dumps(value) for key, value in flatten(to_plain(spec)).items()}
    parts |= {f"version.{name}": version for name, version in library_versions().items()}
    parts |= {f"env.{name}": value for name, value in sorted(os.environ.items()) if _is_switch(name)}
    parts["code.modelpress"] = _hash_own_code()
    model, table = spec.model, spec.export.custom_translation_table
    arguments = [model.source, model.input_factory, model.constants, table]
    for dotted in collect_targets(arguments):
        parts.update(_code_parts(dotted, hashes))
    fills = [item.fill.path for item in model.inputs.values() if item.fill.path is not None]
    late: dict[str, Callable[[], str]] = {}
    for text in sorted({*fills, *_collect_texts(arguments)}):
        for path in _find_data(text):
            hashes.start(path)
            late[f"data.{path}"] = partial(hashes.of_file, path)
    if model.weights is not None and Path(model.weights).is_file():
        hashes.start_weights(Path(model.weights))
        late["weights"] = partial(hashes.of_weights, Path(model.weights))
    return Fingerprint(parts, late)


def explain_change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Why an export is made again, in a few words; empty if nothing changed."""
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    changed.sort(key=lambda key: _SECTIONS.index(_section(key)) if _section(key) in _SECTIONS else len(_SECTIONS))
    reasons = [_explain_part(key, old.get(key), new.get(key)) for key in changed]
    more = f" and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
    return ", ".join(reasons[:_MAX_REASONS]) + more


def _section(key: str) -> str:
    return key.partition(".")[0]


def _explain_part(key: str, old: str | None, new: str | None) -> str:
    section, _, name = key.partition(".")
    if section in ("code", "data"):
        # The whole path where there are more files of that name than one can tell apart.
        short = name if Path(name).name == "__init__.py" else Path(name).name
        return f"{section} changed: {short}"
    if section == "weights":
        return "weights changed"
    last = name.rsplit(".", 1)[-1] if section == "spec" else name
    return f"{last} {_show(old)} -> {_show(new)}"


def _show(value: str | None) -> str:
    return "nothing" if value is None else value.strip('"')[:40]


def _is_switch(name: str) -> bool:
    return name.startswith(_SWITCH_PREFIXES) or name in _SWITCHES


def _collect_texts(node: object) -> Iterator[str]:
    """Every text among the arguments that a config gives to code."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key != "_target_":
                yield from _collect_texts(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _collect_texts(item)


def _find_data(text: str) -> list[Path]:
    """The file that a text names, or those in the folder that it names; none where it names nothing.

    Only what lies in the folder itself, which is where `from_pretrained` looks; and no folder that the project is in.
    """
    if os.path.isfile(text):  # noqa: PTH113  (a Path complains of texts that no path can be)
        return [Path(text)]
    if not text or not os.path.isdir(text) or Path.cwd().is_relative_to(Path(text).resolve()):  # noqa: PTH112
        return []
    return sorted(path for path in Path(text).iterdir() if path.is_file())


def _code_parts(dotted: str, hashes: Hashes) -> Iterator[tuple[str, str]]:
    target = find_target(dotted)
    if target is None:
        return
    sources = find_sources(target)
    for name, path in sources.files.items():
        # Our own files are one part together, `code.modelpress`.
        if not is_modelpress(path):
            yield f"code.{name}", hashes.of_file(path)
    for package in sources.packages:
        version = _distribution_version(package)
        if version:
            yield f"version.{package}", version
            continue
        # Installed, but by no distribution that says its version: its first file, and the target's, speak for it.
        for found in (find_target(f"{package}.*"), target):
            if found is not None and is_installed(found.path):
                yield f"code.{found.module}", hashes.of_file(found.path)


@cache
def _distribution_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # The package and its distribution may have different names; this look-up is slower.
        names = _distributions().get(package, [])
        return metadata.version(names[0]) if names else None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@cache
def _hash_own_code() -> str:
    """The exporter's own source, the zoo left out: each zoo model counts for itself."""
    package = Path(exporter.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
