"""Puts the bytes of a release back into exports/: from DVC's cache, or its remote, by the hash in the manifest.

Everything is fetched and held against the manifest's sha256 before anything in exports/ is exchanged. DVC's own
checkout goes by dvc.lock, which knows one version of an export, and hands out a damaged cache object without a word.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, IntegrityError, ModelpressError, StorageError, SyncError
from exporter.files import hash_file
from exporter.lock import lock_output
from exporter.publication import publish
from registry_sync.commands import show_command
from registry_sync.release_bytes import find_repository, list_objects, open_repository
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
        """Exchange them, each in one step, and let dvc.lock say so; yields lines for the user.

        Raises:
            StorageError: The disk would not; dvc.lock has what was exchanged until then.
            IntegrityError: An export is not what it says itself; likewise.
            SyncError: The bytes are in place, and DVC could not be told.
        """
        exchanged: list[Path] = []
        try:
            for wanted, directory in self.exports:
                _exchange(wanted, directory)
                exchanged.append(wanted.target)
                yield f"{wanted.target}: as in {wanted.manifest.title}"
        except ModelpressError:
            _commit(exchanged)
            raise
        yield from (f"{wanted.target}: is as in {wanted.manifest.title} already" for wanted in self.unchanged)
        yield from (
            f"{wanted.target}: left as it is; DVC had no version of it in {wanted.manifest.title}"
            for wanted in self.without
        )
        if self.exports:
            _commit(exchanged)
            yield "exports are those of an earlier release; the next batch makes those again that are not up to date"


@contextmanager
def stage(wanted: Sequence[Wanted]) -> Iterator[Staged]:
    """Bring the bytes of exports beside exports/, and keep batches from it meanwhile.

    Raises:
        LockedError: A batch is at work.
        ConfigError: There is no DVC repository to take them from.
        StorageError: The disk would not.
        SyncError: Neither DVC's cache nor its remote has them; or has what stands in their places.
        IntegrityError: What DVC has is not what was released.
    """
    missing = [one for one in wanted if not is_in_place(one)]
    unchanged = [one for one in wanted if one not in missing]
    due = [one for one in missing if one.model.dvc_hash]
    without = [one for one in missing if not one.model.dvc_hash]
    if not due:
        yield Staged([], unchanged, without)
        return
    root = find_repository()
    if root is None:
        raise ConfigError("not a DVC repository; the bytes of a release come from DVC's cache (or --registry-only)")
    exports = due[0].target.parent
    folder = exports.parent / f".{exports.name}.staged"
    with lock_output(exports):
        shutil.rmtree(folder, ignore_errors=True)
        repository = open_repository(root)
        try:
            _require_kept(repository, [one.target for one in due])
            try:
                staged = Staged([(one, _fetch(repository, one, folder)) for one in due], unchanged, without)
            except OSError as error:
                raise StorageError(f"{folder}: {error}; nothing was changed") from error
            yield staged
        finally:
            repository.close()
            shutil.rmtree(folder, ignore_errors=True)


def is_in_place(wanted: Wanted) -> bool:
    """Whether exports/ has the very files of the release."""
    return all(
        (path := wanted.target / file.path).is_file()
        and path.stat().st_size == file.size_bytes
        and hash_file(path) == file.sha256
        for file in wanted.model.files
    )


def _require_kept(repository: Any, targets: Sequence[Path]) -> None:
    """Complain where DVC could not bring back what is to be replaced: the batch found it locked, or was killed."""
    known = {Path(out.fs_path): out.hash_info.value for out in repository.index.outs if out.hash_info}
    lost = [target for target in targets if not _is_kept(repository, target, known.get(target.resolve(), ""))]
    if lost:
        names = " ".join(map(str, lost))
        raise SyncError(
            f"{', '.join(map(str, lost[:5]))}: DVC does not have what is there now, which would be lost; nothing was "
            "changed: python -m registry_sync sync first\n"
            f"  if that has nothing to do: {show_command('dvc')} commit -f {names}, or remove what is not wanted"
        )


def _is_kept(repository: Any, target: Path, value: str) -> bool:
    """Whether DVC has an export as it is; result.json tells, which names the model's files by their sha256."""
    result = ExportDirectory(target).result
    if not result.is_file():
        return True
    if not value.endswith(".dir"):
        return False
    try:
        found = _fetch_objects(repository, value)
        return (
            all(place.is_file() for place in found.values())
            and result.name in found
            and found[result.name].read_bytes() == result.read_bytes()
        )
    except (OSError, ValueError) as error:
        raise SyncError(f"{target}: DVC's cache: {error}") from error


def _fetch(repository: Any, wanted: Wanted, folder: Path) -> ExportDirectory:
    """Copy an export out of DVC's cache, and hold it against the manifest."""
    model = wanted.model
    target = folder / model.id
    target.mkdir(parents=True)
    for name, place in _find_objects(repository, wanted).items():
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
            f"{', '.join(damaged[:5])}; nothing was changed"
        )
    return ExportDirectory(target)


def _find_objects(repository: Any, wanted: Wanted) -> dict[str, Path]:
    """The cache's files of an export by their names in it; fetched from the remote where they are missing."""
    value = wanted.model.dvc_hash
    try:
        found = _fetch_objects(repository, value)
    except (OSError, ValueError) as error:
        raise SyncError(f"{wanted.target}: DVC's cache: {error}") from error
    if not found or not all(place.is_file() for place in found.values()):
        raise SyncError(
            f"{wanted.target}: neither DVC's cache nor its remote has {value}, which it was in "
            f"{wanted.manifest.title}; nothing was changed"
        )
    return found


def _fetch_objects(repository: Any, value: str) -> dict[str, Path]:
    """The cache's files of a folder, there or not, after those that were not have been asked of the remote.

    Raises:
        OSError, ValueError: The cache's list of them is broken.
    """
    cache = repository.cache.local
    found = list_objects(cache, value)
    if found is None:
        _pull(repository, [value])
        found = list_objects(cache, value) or {}
    missing = [place for place in found.values() if not place.is_file()]
    if missing:
        # Two digits of an object's hash are its folder.
        _pull(repository, [place.parent.name + place.name for place in missing])
    return found


def _exchange(wanted: Wanted, directory: ExportDirectory) -> None:
    try:
        publish(directory, wanted.target, directory.read_result())
    except OSError as error:
        raise StorageError(f"{wanted.target}: {error}; the same command again goes on from there") from error
    except ValueError as error:
        raise IntegrityError(f"{wanted.target}: {wanted.manifest.title}: {error}") from error


def _pull(repository: Any, hashes: Sequence[str]) -> None:
    """Fetch objects from the default remote, as far as it has them; of a folder, that is the list of its files."""
    from dvc.config import NoRemoteError
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        repository.cloud.pull([HashInfo("md5", value) for value in hashes])
    except NoRemoteError:
        # Then the cache is all there is.
        return
    except Exception as error:
        raise SyncError(f"DVC's remote: {error}") from error


def _commit(targets: Sequence[Path]) -> None:
    """Let dvc.lock, and the .dvc files of exports without a stage, say what is there now."""
    if not targets:
        return
    root = find_repository()
    assert root is not None
    repository = open_repository(root)
    try:
        stages = {
            out.stage.addressing
            for out in repository.index.outs
            if Path(out.fs_path) in {target.resolve() for target in targets}
        }
        for stage_name in sorted(stages):
            repository.commit(stage_name, force=True, relink=False)
    except Exception as error:
        raise SyncError(
            f"the bytes are in place; DVC could not be told: {error}\n"
            f"  catch up with: {show_command('dvc')} commit -f {' '.join(map(str, targets))}"
        ) from error
    finally:
        repository.close()
