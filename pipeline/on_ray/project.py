"""The user's project on its way to other machines: model code, and the data that specs name.

Here, where the batch runs, the project's folders are copied to one that Ray takes along (`stage_project`). There,
`find_lacking` sees that a spec's files are where it looks for them, and which of them are not there at all.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import exporter
from exporter.checkpoint import find_files
from exporter.errors import ConfigError
from exporter.files import hash_file
from exporter.spec import ExportSpec
from pipeline.on_ray.messages import DataFile
from pipeline.source_code import is_installed

__all__ = ["Stage", "find_data", "find_lacking", "is_portable", "stage_project"]

# Code and small data; what specs name may be larger, and travels by itself.
_MAX_FILE_BYTES = 10 << 20
_MAX_BYTES = 200 << 20
_MAX_FILES = 20_000
# What tools leave beside code. Names that begin with a dot are left out too: .git, .venv, .env.
_NO_CODE = frozenset({"__pycache__", "node_modules", "mlruns", "mlartifacts"})
# Ours is installed on the nodes; the copy that the batch runs may lie in the working directory.
_OWN_ROOT = Path(exporter.__file__).resolve().parent.parent
_OWN = ("exporter", "pipeline", "registry_sync", "hydra_plugins", "conf")


@dataclass(frozen=True)
class Stage:
    """A copy of the project, and where in it are the working directory and the folders of `sys.path`."""

    directory: str
    path: tuple[str, ...]


def stage_project(target: Path, working_directory: Path, path: Sequence[str], outputs: Sequence[str]) -> Stage:
    """Copy the working directory and what is on the path without being installed.

    Args:
        target: An empty folder.
        working_directory: Whether it is on the path or not.
        path: Of Python; "" is the working directory.
        outputs: Names in the working directory that are no part of the project.

    Raises:
        ConfigError: That is more than a project's code.
    """
    places: dict[Path, str] = {}
    found = []
    num_files = num_bytes = 0
    for root in _find_roots(working_directory, path):
        # A folder within one that went along may be there already, or may be of those that stay.
        inside = next((known for known in places if root.is_relative_to(known)), None)
        if inside is None or not (target / places[inside] / root.relative_to(inside)).is_dir():
            places[root] = str(len(places))
            for source in _find_files(root, outputs if root == working_directory else ()):
                num_files += 1
                num_bytes += source.stat().st_size
                if num_files > _MAX_FILES or num_bytes > _MAX_BYTES:
                    raise ConfigError(_explain_size(root))
                copy = target / places[root] / source.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, copy)
            found.append(places[root])
        else:
            found.append(str(places[inside] / root.relative_to(inside)))
    (target / found[0]).mkdir(parents=True, exist_ok=True)
    return Stage(found[0], tuple(found))


def _find_roots(working_directory: Path, path: Sequence[str]) -> list[Path]:
    on_path = [(working_directory / entry).absolute() for entry in path]
    folders = [folder for folder in on_path if folder.is_dir() and not is_installed(folder)]
    others = [folder for folder in folders if folder.resolve() != _OWN_ROOT]
    return list(dict.fromkeys([working_directory.absolute(), *others]))


def _find_files(root: Path, outputs: Sequence[str]) -> Iterator[Path]:
    left_out = {*outputs, *(_OWN if root.resolve() == _OWN_ROOT else ())}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        names = left_out if here == root else ()
        folders[:] = [name for name in folders if _is_code(here / name) and name not in names]
        for name in files:
            file = here / name
            if not name.startswith(".") and name not in names and _is_small_file(file):
                yield file


def _is_code(folder: Path) -> bool:
    name = folder.name
    return not (
        name.startswith(".")
        or name in _NO_CODE
        or name.endswith(".egg-info")
        or (folder / "pyvenv.cfg").exists()
        or is_installed(folder)
    )


def _is_small_file(file: Path) -> bool:
    return file.is_file() and file.suffix != ".db" and file.stat().st_size <= _MAX_FILE_BYTES


def _explain_size(root: Path) -> str:
    return (
        f"executor.address: the project goes to the nodes, and {root} has more than {_MAX_FILES:,} files, or "
        f"{_MAX_BYTES >> 20} MiB of files under {_MAX_FILE_BYTES >> 20} MiB each; run in the folder that has the "
        "model code, and keep data elsewhere"
    )


def find_data(spec: ExportSpec, working_directory: Path) -> list[tuple[str, Path]]:
    """The files that a spec names, each with its place.

    Raises:
        CheckpointError: An index of a checkpoint cannot be read.
        OSError: Likewise.
    """
    names = [item.fill.path for item in spec.model.inputs.values() if item.fill.path is not None]
    if spec.model.weights is not None:
        weights = Path(spec.model.weights)
        names += [str(weights.parent / file.name) for file in find_files(working_directory / weights)]
    return [(name, working_directory / name) for name in dict.fromkeys(names)]


def find_lacking(
    data: Sequence[DataFile], working_directory: Path, known: dict[tuple[str, int, int], str]
) -> Mapping[str, DataFile]:
    """The files that this machine does not have, by their names; those that it has are where the spec looks for them.

    What is there is believed by its sha256 alone: a file of that name and size may be another one.

    Args:
        data: Relative names are within the working directory.
        working_directory: A folder of our own, where a link can be made to what lies elsewhere.
        known: The sha256 of files that were read before, by place, size and time; added to.
    """
    lacking = {}
    for file in data:
        here = working_directory / file.name
        if _has_bytes(here, file, known):
            continue
        there = Path(file.place)
        if is_portable(file.name) and _has_bytes(there, file, known):
            here.parent.mkdir(parents=True, exist_ok=True)
            here.unlink(missing_ok=True)
            here.symlink_to(there)
        else:
            lacking[file.name] = file
    return lacking


def is_portable(name: str) -> bool:
    """Whether a file of that name can be put where a spec looks for it on another machine: in the project."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _has_bytes(path: Path, file: DataFile, known: dict[tuple[str, int, int], str]) -> bool:
    try:
        status = path.stat()
        if status.st_size != file.size_bytes:
            return False
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in known:
            known[key] = hash_file(path)
        return known[key] == file.sha256
    except OSError:
        return False
