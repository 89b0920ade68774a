"""Puts the bytes of a release back into exports/: from DVC's cache, or its remote, by the hash in the manifest.

Everything is fetched and held against the manifest's sha256 before anything in exports/ is exchanged. DVC's own
checkout goes by dvc.lock, which knows one version of an export, and hands out a damaged cache object without a word.

What dvc.lock said of an export when it was released, and its numbers in metrics/, go back with it: so `dvc status`
tells what is newer than the export, and is clean once git has taken that back as well.
"""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, IntegrityError, ModelpressError, StorageError, SyncError
from exporter.files import hash_file
from exporter.lock import lock_output
from exporter.plain_data import DataError
from exporter.publication import publish
from exporter.published import read_published
from registry_sync.commands import show_command
from registry_sync.dvc_repository import DvcRepository, find_repository, open_repository
from registry_sync.metrics import write_metrics
from registry_sync.plot_data import gather_metrics
from registry_sync.release_bytes import has_result
from registry_sync.release_manifest import Manifest, ReleasedModel

__all__ = ["Staged", "Wanted", "is_in_place", "stage"]


@dataclass(frozen=True)
class Wanted:
    """An export as a release has it."""

    manifest: Manifest
    model: ReleasedModel

    @property
    def target(self) -> Path:
        return Path(self.manifest.exports) / self.model.id


@dataclass(frozen=True)
class Staged:
    """Exports that are ready to be exchanged.

    Args:
        exports: What is wanted, and where it lies meanwhile.
        unchanged: Which are in place already.
        without: Which DVC has no version of.
    """

    exports: Sequence[tuple[Wanted, ExportDirectory]]
    unchanged: Sequence[Wanted]
    without: Sequence[Wanted]

    def put_in_place(self) -> Iterator[str]:
        """Exchange them, each in one step, and let DVC's files say so; yields lines for the user.

        Can be repeated: a command that was cut off has exchanged some, and told DVC nothing of them.

        Raises:
            StorageError: The disk would not; DVC's files have what was exchanged until then.
            IntegrityError: An export is not what it says itself; likewise.
            SyncError: The bytes are in place, and DVC could not be told.
        """
        there = [wanted for wanted in self.unchanged if wanted.model.dvc_hash]
        try:
            for wanted, directory in self.exports:
                _exchange(wanted, directory)
                there.append(wanted)
                yield f"{wanted.target}: as in {wanted.manifest.title}"
        except ModelpressError:
            _record(there)
            raise
        yield from (f"{wanted.target}: is as in {wanted.manifest.title} already" for wanted in self.unchanged)
        yield from (
            f"{wanted.target}: left as it is; DVC had no version of it in {wanted.manifest.title}"
            for wanted in self.without
        )
        _record(there)
        if self.exports:
            yield "exports are those of an earlier release; the next batch makes those again that are not up to date"


@contextmanager
def stage(wanted: Sequence[Wanted]) -> Iterator[Staged]:
    """Bring the bytes of exports beside exports/, and keep batches from it meanwhile.

    Raises:
        LockedError: A batch is at work.
        ConfigError: There is no DVC repository to take them from.
        StorageError: The disk would not, or files that are no export's stand where one has to go.
        SyncError: Neither DVC's cache nor its remote has them; or has what stands in their places.
        IntegrityError: What DVC has is not what was released.
    """
    if not wanted:
        yield Staged([], [], [])
        return
    exports = wanted[0].target.parent
    with lock_output(exports):
        missing = [one for one in wanted if not is_in_place(one)]
        unchanged = [one for one in wanted if one not in missing]
        due = [one for one in missing if one.model.dvc_hash]
        without = [one for one in missing if not one.model.dvc_hash]
        if not due:
            yield Staged([], unchanged, without)
            return
        if find_repository() is None:
            raise ConfigError("not a DVC repository; the bytes of a release come from DVC's cache (or --registry-only)")
        folder = exports.parent / f".{exports.name}.staged"
        with _stage(due, folder) as staged:
            yield Staged(staged, unchanged, without)


@contextmanager
def _stage(due: Sequence[Wanted], folder: Path) -> Iterator[list[tuple[Wanted, ExportDirectory]]]:
    with open_repository() as repository:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _require_kept(repository, [one.target for one in due])
            try:
                staged = [(one, _fetch(repository, one, folder)) for one in due]
            except OSError as error:
                raise StorageError(f"{folder}: {error}; nothing was changed") from error
            yield staged
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_in_place(wanted: Wanted) -> bool:
    """Whether exports/ has the very files of the release."""
    return all(
        (path := wanted.target / file.path).is_file()
        and path.stat().st_size == file.size_bytes
        and hash_file(path) == file.sha256
        for file in wanted.model.files
    )


def _require_kept(repository: DvcRepository, targets: Sequence[Path]) -> None:
    """Complain where DVC could not bring back what is to be replaced: the batch found it locked, or was killed.

    Or somebody keeps files of their own there.
    """
    outputs = repository.find_outputs()
    lost = []
    for target in targets:
        directory = ExportDirectory(target)
        if target.is_symlink() or not directory.result.is_file():
            if obstacle := read_published(target).obstacle:
                raise StorageError(f"{obstacle}; nothing was changed")
        elif not _is_kept(repository, directory, outputs.get(target.resolve(), [])):
            lost.append(target)
    if lost:
        names = " ".join(map(str, lost))
        raise SyncError(
            f"{', '.join(map(str, lost[:5]))}: DVC does not have what is there now, which would be lost; nothing was "
            "changed: python -m registry_sync sync first\n"
            f"  if that has nothing to do: {show_command('dvc')} commit -f {names}, or remove what is not wanted"
        )


def _is_kept(repository: DvcRepository, directory: ExportDirectory, outputs: Sequence[Any]) -> bool:
    value = str(outputs[0].hash_info.value) if outputs and outputs[0].hash_info else ""
    if not value.endswith(".dir"):
        return False
    objects = _fetch_objects(repository, directory.path, value)
    return all(place.is_file() for place in objects.values()) and has_result(repository, value, directory)


def _fetch(repository: DvcRepository, wanted: Wanted, folder: Path) -> ExportDirectory:
    """Copy an export out of DVC's cache, and hold it against the manifest."""
    model = wanted.model
    target = folder / model.id
    target.mkdir(parents=True)
    found = _find_objects(repository, wanted)
    for name, place in found.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place, path)
    damaged = [
        file.path
        for file in model.files
        if not (target / file.path).is_file() or hash_file(target / file.path) != file.sha256
    ]
    if damaged:
        raise IntegrityError(
            f"{wanted.target}: what DVC's cache has of {wanted.manifest.title} is not what was released: "
            f"{', '.join(damaged[:5])}; nothing was changed; without what is damaged, it is asked of the remote:\n"
            f"rm -f {' '.join(shlex.quote(os.path.relpath(found[name])) for name in damaged[:5] if name in found)}"
        )
    return ExportDirectory(target)


def _find_objects(repository: DvcRepository, wanted: Wanted) -> dict[str, Path]:
    """The cache's files of an export by their names in it; fetched from the remote where they are missing."""
    value = wanted.model.dvc_hash
    found = _fetch_objects(repository, wanted.target, value)
    if not found or not all(place.is_file() for place in found.values()):
        raise SyncError(
            f"{wanted.target}: neither DVC's cache nor its remote has {value}, which it was in "
            f"{wanted.manifest.title}; nothing was changed"
        )
    return found


def _fetch_objects(repository: DvcRepository, target: Path, value: str) -> dict[str, Path]:
    """The cache's files of a folder, there or not, after those that were not have been asked of the remote.

    Raises:
        SyncError: The cache's list of them is broken, or the remote cannot be asked.
    """
    try:
        found = repository.list_folder(value)
        if found is None:
            repository.fetch_objects([value])
            found = repository.list_folder(value) or {}
        missing = [place for place in found.values() if not place.is_file()]
        if missing:
            # Two digits of an object's hash are its folder.
            repository.fetch_objects([place.parent.name + place.name for place in missing])
    except (OSError, DataError) as error:
        raise SyncError(f"{target}: DVC's cache: {error}") from error
    return found


def _exchange(wanted: Wanted, directory: ExportDirectory) -> None:
    try:
        publish(directory, wanted.target, directory.read_result())
    except OSError as error:
        raise StorageError(f"{wanted.target}: {error}; the same command again goes on from there") from error
    except ValueError as error:
        raise IntegrityError(f"{wanted.target}: {wanted.manifest.title}: {error}") from error


def _record(there: Sequence[Wanted]) -> None:
    """Let dvc.lock, .dvc files and metrics/ say what is in exports/ now."""
    if not there or find_repository() is None:
        return
    metrics = there[0].manifest.metrics
    for wanted in there:
        try:
            write_metrics(metrics, ExportDirectory(wanted.target).read_result())
        except (OSError, DataError) as error:
            raise StorageError(f"{metrics}/: {error}; the same command again goes on from there") from error
    gather_metrics(metrics)
    try:
        with open_repository() as repository, repository.hold():
            _record_in_dvc(repository, there)
    except SyncError as error:
        raise SyncError(
            f"the bytes are in place; DVC could not be told: {error}\n  the same command again does it"
        ) from error


def _record_in_dvc(repository: DvcRepository, there: Sequence[Wanted]) -> None:
    outputs = repository.find_outputs()
    entries: list[tuple[Any, Mapping[str, Any]]] = []
    commits = []
    for wanted in there:
        for output in outputs.get(wanted.target.resolve(), [])[:1]:
            if wanted.model.dvc_lock and not output.stage.is_data_source:
                entries.append((output.stage, wanted.model.dvc_lock))
            else:
                repository.commit(output.stage)
                commits.append(output.stage)
    repository.write_locks(commits)
    repository.restore_locks(entries)
