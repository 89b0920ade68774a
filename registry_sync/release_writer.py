"""Writes releases/<name>-<version>/, whole or not at all, and only where there is something new to release.

Whether there is, is told by what is on the disk and not by what a batch did: one that was killed before it could write
its release leaves that to the next, which finds everything up to date.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from exporter.errors import LockedError, StorageError
from exporter.files import hash_file, sync
from registry_sync.baseline import find_accepted
from registry_sync.failure_ledger import add_history
from registry_sync.record import GOOD, BatchRecord, RunDirectory
from registry_sync.release_contents import describe_exports
from registry_sync.release_difference import compare_models
from registry_sync.release_manifest import Manifest, ReleaseDirectory, ReleasedModel, Verdict, find_releases
from registry_sync.release_options import ReleaseOptions
from registry_sync.release_signature import sign_release

__all__ = ["Draft", "draft_release", "list_sums", "lock_releases", "require_free", "write_release"]

_LOCK_S = 60.0


@dataclass(frozen=True)
class Draft:
    """A release as it would be, and those before it.

    Args:
        manifest: Without a version where nothing is new.
        earlier: Releases of that name, oldest first.
        unchanged: The last release, or that of the version which is asked for, if the draft says nothing that it does
            not.
    """

    manifest: Manifest
    earlier: Sequence[tuple[ReleaseDirectory, Manifest]]
    unchanged: tuple[ReleaseDirectory, Manifest] | None


@contextmanager
def lock_releases(root: Path) -> Iterator[None]:
    """One process at a time writes releases and moves aliases; the kernel lets go of the lock however that ends.

    Raises:
        LockedError: Another one has been at it for a minute.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=_LOCK_S)
    except Timeout:
        raise LockedError(f"{root}: another process writes or promotes releases there; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def draft_release(
    run: RunDirectory, record: BatchRecord, options: ReleaseOptions, root: Path, today: date | None = None
) -> Draft:
    """Judge a finished batch against the releases before it.

    Args:
        run: Of the batch.
        record: Of the batch.
        options: What the release is to hold.
        root: Where releases are, whose lock the caller holds.
        today: In UTC.

    Raises:
        IntegrityError: Published bytes are not what was proven.
        DataError, OSError: A record cannot be read.
    """
    today = today or datetime.now(UTC).date()
    for left in root.glob(".new-*"):
        # Of a process that was killed at it: we have the lock.
        shutil.rmtree(left)
    earlier = find_releases(root, options.name)
    manifests = [manifest for _, manifest in earlier]
    models = [_judge(model, manifests, options, today) for model in describe_exports(run, record)]
    last = manifests[-1] if manifests else None
    names = {model.id for model in models}
    manifest = Manifest(
        name=options.name,
        version="",
        created_at=_choose_time(last).isoformat(timespec="milliseconds"),
        previous=last.version if last else "",
        passed=all(model.verdict.is_good for model in models),
        run_id=record.run_id,
        git_commit=record.git_commit,
        command=record.command,
        exports=_find_exports(record),
        metrics=record.metrics,
        removed=sorted(model.id for model in (last.models if last else []) if model.id not in names),
        models=models,
        versions=record.versions,
        tracking=record.tracking,
    )
    named = [one for one in earlier if options.version in (None, one[1].version)]
    if named and _take_identity(named[-1][1]) == _take_identity(manifest):
        return Draft(manifest, earlier, named[-1])
    version = _choose_version(options, root, today)
    return Draft(replace(manifest, version=version), earlier, None)


def write_release(
    root: Path, manifest: Manifest, pages: dict[str, str], sign_key: Path | None = None
) -> ReleaseDirectory:
    """Write a release's directory and show it when it is complete.

    Args:
        root: Where releases are, whose lock the caller holds.
        manifest: With its version.
        pages: Text of further files, by their names.
        sign_key: Signs the release; see `release_signature`.

    Raises:
        StorageError: The version is taken.
        ConfigError: The key is none.
        OSError: The disk would not.
    """
    target = ReleaseDirectory(root / manifest.title)
    require_free(target)
    # By its own name already, which the signature has in it.
    making = ReleaseDirectory(root / f".new-{manifest.name}" / manifest.title)
    making.path.mkdir(parents=True)
    try:
        _fill(making, target, manifest, pages, sign_key)
        making.path.rename(target.path)
        sync(root)
    finally:
        shutil.rmtree(making.path.parent, ignore_errors=True)
    return target


def _fill(
    making: ReleaseDirectory,
    target: ReleaseDirectory,
    manifest: Manifest,
    pages: dict[str, str],
    sign_key: Path | None,
) -> None:
    making.write_manifest(manifest)
    for name, text in pages.items():
        (making.path / name).write_text(text, encoding="utf-8")
    making.sums.write_text("".join(list_sums(making, target, manifest)), encoding="utf-8")
    if sign_key is not None:
        sign_release(making, sign_key)
    for path in making.path.iterdir():
        sync(path)
    sync(making.path)


def require_free(target: ReleaseDirectory) -> None:
    """See that nothing stands at a release's place.

    Raises:
        StorageError: Something does.
    """
    if os.path.lexists(target.path):
        raise StorageError(f"{target.path}: is there already, with other content; choose another release.version")


def _judge(model: ReleasedModel, earlier: Sequence[Manifest], options: ReleaseOptions, today: date) -> ReleasedModel:
    model = add_history(model, earlier, options.known_failures, today)
    baseline = find_accepted(model.id, earlier)
    if model.failure is not None or baseline is None:
        return model
    manifest, before = baseline
    changes = compare_models(before, model, options.budgets)
    is_over = any(change.exceeded for change in changes) and model.id not in options.accept
    verdict = Verdict.over_budget if is_over else Verdict.accepted
    return replace(model, baseline=manifest.version, changes=changes, verdict=verdict)


def _take_identity(manifest: Manifest) -> object:
    """What makes a release another one: the bytes, with their evidence, and the verdicts."""
    return {
        model.id: (
            model.verdict,
            sorted((file.path, file.sha256) for file in model.files),
            model.failure.fingerprint if model.failure else "",
        )
        for model in manifest.models
    }


def _choose_time(last: Manifest | None) -> datetime:
    """Now; where a clock that was wrong has written a later one, right after that.

    Else the next release would never be the last one, and each batch would make another of the same content.
    """
    now = datetime.now(UTC)
    return now if last is None else max(now, datetime.fromisoformat(last.created_at) + timedelta(milliseconds=1))


def _choose_version(options: ReleaseOptions, root: Path, today: date) -> str:
    if options.version is not None:
        return options.version
    day = f"{today:%Y.%m.%d}"
    number = 1
    while os.path.lexists(root / f"{options.name}-{_number(day, number)}"):
        number += 1
    return _number(day, number)


def _number(day: str, number: int) -> str:
    return day if number == 1 else f"{day}.{number}"


def _find_exports(record: BatchRecord) -> str:
    """The directory that the published ones lie in, which is one for all; empty if there are none."""
    published = [export for export in record.exports if export.outcome in GOOD]
    return str(Path(published[0].directory).parent) if published else ""


def list_sums(making: ReleaseDirectory, target: ReleaseDirectory, manifest: Manifest) -> Iterator[str]:
    """Lines for sha256sum, with paths from the working directory.

    Args:
        making: Where the release's own files lie.
        target: Where they will lie.
        manifest: Of the release.
    """
    for path in making.own_files:
        if path.exists():
            yield f"{hash_file(path)}  {os.path.relpath(target.path / path.name)}\n"
    for model in manifest.models:
        for file in model.files:
            yield f"{file.sha256}  {manifest.exports}/{model.id}/{file.path}\n"
