"""`dvc push` and `dvc pull`, with every export held against its own record: before it goes, and before it comes in."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from exporter.directory import ExportDirectory, NewerSchemaError
from exporter.errors import ConfigError, IntegrityError, SyncError
from exporter.lock import lock_output
from exporter.plain_data import DataError
from registry_sync.cached_exports import CachedExport, Damage, find_cached_exports, is_record
from registry_sync.commands import show_command
from registry_sync.dvc_repository import DvcRepository, open_repository

__all__ = ["pull", "push"]

# Standard error shall stay under 15 lines.
_MAX_LINES = 3


def push(paths: Sequence[Path], remote: str | None = None, jobs: int | None = None) -> Iterator[str]:
    """Push what DVC has, if all of it is whole; yields lines for the user.

    Args:
        paths: Of outputs; none: all.
        remote: Its name; None: the default one.
        jobs: How many files at a time; None: as DVC likes.

    Raises:
        IntegrityError: The cache's bytes are not the recorded ones; nothing was pushed.
        SyncError: DVC could not, or what it has is not what is published.
    """
    with open_repository() as repository, repository.hold():
        repository.require_remote(remote)
        exports = list(find_cached_exports(repository, _choose(repository, paths)))
        damage: list[str] = []
        remedies: list[str] = []
        for export in exports:
            if found := list(export.find_damage()):
                damage += map(str, found)
                remedies.append(_mend_cache(export, found))
        if damage:
            raise IntegrityError("\n".join([*_cut(damage), "nothing was pushed; mend DVC's cache:", *_cut(remedies)]))
        number = repository.push(paths, remote, jobs)
        yield f"pushed {_count(number, 'file')}; {_count(len(exports), 'export')} as recorded"
        if newer := [_show(export.path) for export in exports if export.is_newer_outside]:
            names = "\n".join(_cut(newer))
            raise SyncError(f"published, but not in DVC yet:\n{names}\npython -m registry_sync sync, then push again")


def pull(paths: Sequence[Path], remote: str | None = None, jobs: int | None = None) -> Iterator[str]:
    """Fetch what DVC knows of, and check out what came whole; yields lines for the user.

    Args:
        paths: Of outputs; none: all.
        remote: Its name; None: the default one.
        jobs: How many files at a time; None: as DVC likes.

    Raises:
        IntegrityError: Some are not as recorded; these were not checked out, the others were.
        SyncError: Some could not be fetched, or would overwrite what DVC does not have; the others are there.
        LockedError: A batch is at work; what was fetched is in the cache.
    """
    with open_repository() as repository, repository.hold():
        repository.require_remote(remote)
        arrival = _Arrival(repository, _choose(repository, paths))
        arrival.fetch(paths, remote, jobs)
        arrival.check_out()
    yield f"fetched {_count(arrival.num_fetched, 'file')}; {_count(arrival.num_whole, 'export')} as recorded"
    if arrival.damage:
        raise IntegrityError("\n".join([*_cut(arrival.damage), *_cut(arrival.remedies), *_cut(arrival.problems)]))
    if arrival.problems:
        raise SyncError("\n".join(_cut(arrival.problems)))


class _Arrival:
    """What comes from a remote: into the cache, and from there, if it is whole, into the working directory."""

    def __init__(self, repository: DvcRepository, outputs: dict[Path, list[Any]]) -> None:
        self._repository = repository
        self._outputs = outputs
        self.num_fetched = 0
        self.num_whole = 0
        # Lines for the user: bytes that are not the recorded ones, what to do about them, and what else went wrong.
        self.damage: list[str] = []
        self.remedies: list[str] = []
        self.problems: list[str] = []

    def fetch(self, paths: Sequence[Path], remote: str | None, jobs: int | None) -> None:
        try:
            self.num_fetched = self._repository.fetch(paths, remote, jobs)
        except SyncError as error:
            # What has come is as good as ever.
            self.problems.append(str(error))

    def check_out(self) -> None:
        """Check out every output that the cache has whole, and hold the exports in it against their records again."""
        exports: dict[Path, list[CachedExport]] = {path: [] for path in self._outputs}
        for export in find_cached_exports(self._repository, self._outputs):
            exports[Path(export.output.fs_path)].append(export)
        with ExitStack() as stack:
            # No batch publishes meanwhile.
            for folder in sorted({export.path.parent for found in exports.values() for export in found}):
                stack.enter_context(lock_output(folder))
            self._check_out(exports)

    def _check_out(self, exports: Mapping[Path, Sequence[CachedExport]]) -> None:
        for path, (output, *_) in self._outputs.items():
            if not self._repository.is_cached(output):
                self.problems.append(f"{_show(path)}: not on the remote; push it from where it was exported")
                continue
            # All are looked at, so that all damage is told.
            if not all([self._is_whole(export) for export in exports[path]]):  # noqa: C419
                continue
            try:
                self._repository.check_out(path)
            except SyncError as error:
                self.problems.append(f"{_show(path)}: not checked out: {error}")
            else:
                for export in exports[path]:
                    self._verify(export)

    def _is_whole(self, export: CachedExport) -> bool:
        found = list(export.find_damage())
        if spoilt := [damage for damage in found if damage.found]:
            self.damage += map(str, spoilt)
            self.remedies.append(f"{_remove(spoilt)} && python -m registry_sync pull {shlex.quote(_show(export.path))}")
        elif found:
            names = ", ".join(damage.path.name for damage in found[:_MAX_LINES])
            self.problems.append(f"{_show(export.path)}: not whole on the remote, which lacks {names}; push it again")
        return not found

    def _verify(self, export: CachedExport) -> None:
        directory = ExportDirectory(export.path)
        try:
            damaged = directory.damaged_files(directory.read_result())
        except NewerSchemaError:
            # What DVC has of it is whole; more is not ours to judge.
            damaged = []
        except (OSError, DataError) as error:
            damaged = [str(error)]
        if damaged:
            # DVC goes by times: a file that was changed behind its back it takes for the one that it knows.
            place = shlex.quote(_show(export.path))
            self.damage.append(f"{place}: not as recorded: {', '.join(damaged)}, though DVC's cache has it whole")
            self.remedies.append(f"rm -r {place} && python -m registry_sync pull {place}")
        else:
            self.num_whole += 1


def _choose(repository: DvcRepository, paths: Sequence[Path]) -> dict[Path, list[Any]]:
    """The outputs that DVC has a version of, all or those at the paths.

    Raises:
        ConfigError: DVC knows nothing of a path.
    """
    outputs = repository.find_outputs()
    known = {path: owners for path, owners in outputs.items() if owners[0].use_cache and owners[0].hash_info}
    wanted = [path.resolve() for path in paths]
    for path, given in zip(wanted, paths, strict=True):
        if path not in known:
            raise ConfigError(f"{given}: DVC has no version of it; {show_command('dvc')} list . -R --dvc-only")
    return {path: known[path] for path in wanted} if wanted else known


def _mend_cache(export: CachedExport, found: Sequence[Damage]) -> str:
    """The command that puts whole bytes into the cache."""
    directory = ExportDirectory(export.path)
    is_ours = is_record(directory.result)
    try:
        is_whole_outside = not directory.damaged_files(directory.read_result())
    except NewerSchemaError:
        is_whole_outside, is_ours = False, False
    except (OSError, DataError):
        is_whole_outside = False
    place = shlex.quote(_show(export.path))
    commit = f"{_remove(found)} && {show_command('dvc')} commit -f {shlex.quote(export.output.stage.addressing)}"
    if is_whole_outside:
        return commit
    if directory.path.exists() and not is_ours:
        # Perhaps somebody's own work, or a newer modelpress's, which can be had nowhere else.
        return f"{commit}   (if {place} is as it should be)"
    return f"{_remove(found)} && rm -rf {place} && python -m registry_sync pull {place}   (or export it again)"


def _remove(found: Sequence[Damage]) -> str:
    return "rm -f " + " ".join(shlex.quote(_show(damage.place)) for damage in found)


def _cut(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
    return [*lines[:_MAX_LINES], *more]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _show(path: Path) -> str:
    return os.path.relpath(path)
