"""The commands of `python -m registry_sync` on releases: list, show, diff, promote, rollback, checkout."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, SyncError
from exporter.plain_data import DataError
from registry_sync.bounded import Budget
from registry_sync.dvc_repository import find_repository
from registry_sync.git_line import suggest_commit
from registry_sync.release_manifest import RELEASES, Manifest, ReleaseDirectory, find_releases
from registry_sync.release_writer import lock_releases

if TYPE_CHECKING:
    from registry_sync.release_workspace import Wanted
    from registry_sync.store import Store

__all__ = ["add_release_commands", "run_release_command"]

_CHAMPION = "champion"
# Of no interest on a terminal.
_LEFT_OUT = ("Versions", "Files")


def add_release_commands(commands: Any) -> None:
    """Add the commands to argparse's own."""
    listed = _add(commands, "list", _list, "all releases, oldest first")
    listed.add_argument("name", nargs="?", metavar="NAME", help="of a release, such as zoo; without: all")
    shown = _add(
        commands, "show", _show, "a release: what changed, what failed; or an export: what was proven, its cost"
    )
    shown.add_argument("what", metavar="RELEASE|EXPORT", help="zoo-2026.11.24, zoo for the newest; mlp, or a directory")
    compared = _add(commands, "diff", _diff, "compare two releases")
    compared.add_argument("before", metavar="A", help="zoo-2026.11.23")
    compared.add_argument("after", metavar="B", help="zoo-2026.11.24, or zoo for the newest")
    promoted = _add(commands, "promote", _promote, "point an alias to the models of a release: all of them, or none")
    promoted.add_argument("name", metavar="NAME", help="of the release, such as zoo")
    promoted.add_argument("--to", default=_CHAMPION, metavar="ALIAS", help=f"without: {_CHAMPION}")
    promoted.add_argument("--release", metavar="VERSION", help="such as 2026.11.24; without: the newest")
    promoted.add_argument("--partial", action="store_true", help="what was accepted in a release that did not pass")
    rolled = _add(commands, "rollback", _roll_back, "undo the last promotion, in MLflow and in exports/")
    rolled.add_argument("name", metavar="NAME", help="of the release, such as zoo")
    rolled.add_argument("--alias", default=_CHAMPION, metavar="ALIAS", help=f"without: {_CHAMPION}")
    rolled.add_argument("--registry-only", action="store_true", help="leave exports/ as it is")
    for command in (promoted, rolled):
        command.add_argument("--tracking-uri", help="instead of the one that the release was made with")
    restored = _add(commands, "checkout", _check_out, "put the bytes of a release into exports/, from DVC")
    restored.add_argument("name", metavar="NAME", help="of the release, such as zoo")
    restored.add_argument("--release", metavar="VERSION", help="such as 2026.11.24; without: the newest")


def run_release_command(parsed: argparse.Namespace) -> Iterator[str]:
    """Carry one out; yields lines for the user.

    Raises:
        ModelpressError: See the commands.
    """
    try:
        yield from parsed.run(parsed)
    except DataError as error:
        raise ConfigError(str(error)) from error


def _add(commands: Any, name: str, run: Callable[..., Iterator[str]], text: str) -> Any:
    command = commands.add_parser(name, help=text)
    command.set_defaults(run=run)
    return command


def _list(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_page import list_releases
    from registry_sync.release_terminal import show_table

    releases = find_releases(RELEASES, parsed.name)
    yield show_table(list_releases(releases)) if releases else "no releases"


def _show(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_page import describe_release
    from registry_sync.release_terminal import show_page

    export = _find_export(parsed.what)
    if export is not None:
        yield from _show_export(export)
        return
    directory, manifest = _find(parsed.what)
    earlier = [one for _, one in find_releases(RELEASES, manifest.name) if one.created_at < manifest.created_at]
    yield show_page(describe_release(manifest, earlier), _LEFT_OUT)
    yield f"\n{directory.page}"


def _find_export(name: str) -> ExportDirectory | None:
    """The export that is meant, unless there is a release of that name."""
    for path in (Path("exports", name), Path(name)):
        if ExportDirectory(path).result.is_file() and not find_releases(RELEASES, name):
            return ExportDirectory(path)
    return None


def _show_export(directory: ExportDirectory) -> Iterator[str]:
    from registry_sync.export_page import describe_export
    from registry_sync.release_terminal import show_page

    yield show_page(describe_export(directory.read_result()))
    yield f"\n{directory.page}"


def _diff(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_page import describe_difference
    from registry_sync.release_terminal import show_table

    (_, before), (_, after) = _find(parsed.before), _find(parsed.after)
    table = describe_difference(before, after)
    yield show_table(table) if table.rows else f"{before.title} and {after.title}: no differences"


def _promote(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_promotion import promote

    release = _choose(parsed.name, parsed.release)
    with lock_releases(RELEASES):
        store = _open_store(release[1], parsed.tracking_uri)
        yield from promote(store, RELEASES, release, parsed.to, partial=parsed.partial)
    yield from _suggest_git(release[1], f"Promote {release[1].title} to {parsed.to}")


def _roll_back(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_promotion import Promotions, mend, roll_back
    from registry_sync.release_workspace import stage

    _, newest = _choose(parsed.name, None)
    with lock_releases(RELEASES):
        store = _open_store(newest, parsed.tracking_uri)
        promotions = Promotions(RELEASES, parsed.name)
        yield from mend(store, promotions)
        moves = promotions.all[promotions.find_last(parsed.alias)].moves
        earlier = {move.export: move.before for move in moves if move.before is not None}
        wanted = [] if parsed.registry_only else _find_wanted(parsed.name, earlier)
        # First, so that nothing has moved where the bytes are not to be had.
        with stage(wanted) as staged:
            yield from roll_back(store, RELEASES, parsed.name, parsed.alias, staged.put_in_place())
    yield from _suggest_git(newest, f"Roll back {parsed.alias} of {parsed.name}")


def _check_out(parsed: argparse.Namespace) -> Iterator[str]:
    from registry_sync.release_workspace import Wanted, stage

    _, manifest = _choose(parsed.name, parsed.release)
    wanted = [Wanted(manifest, model) for model in manifest.models if model.failure is None]
    if not wanted:
        yield f"{manifest.title}: no export passed in it; there is nothing to put in place"
        return
    with stage(wanted) as staged:
        yield from staged.put_in_place()
        if len(staged.without) == len(wanted):
            raise SyncError(f"nothing of {manifest.title} is in exports/: DVC has no version of any of its exports")
    yield from _suggest_git(manifest, f"Check out {manifest.title}")


def _suggest_git(manifest: Manifest, subject: str) -> Iterator[str]:
    """The line for git: releases/, dvc.lock and metrics/ belong there."""
    exports = [Path(manifest.exports, model.id) for model in manifest.models if model.failure is None]
    if line := suggest_commit(find_repository(), subject, exports, manifest.metrics):
        yield line


def _find_wanted(name: str, versions: dict[str, str]) -> "Sequence[Wanted]":
    """The newest release that has each export in this version of the registered model, and DVC's hash of it.

    An export that was up to date has the same version in each, and DVC may have been off in some, or in all.
    """
    from registry_sync.release_workspace import Wanted

    wanted: dict[str, Wanted] = {}
    for directory, manifest in find_releases(RELEASES, name):
        registration = directory.read_registration()
        for export, version in versions.items():
            model = manifest.find(export)
            if registration is None or model is None or registration.versions.get(export) != version:
                continue
            if model.dvc_hash or export not in wanted or not wanted[export].model.dvc_hash:
                wanted[export] = Wanted(manifest, model)
    missing = sorted(versions.keys() - wanted.keys())
    if missing:
        raise SyncError(
            f"no release in {RELEASES}/ has what {', '.join(missing[:5])} should go back to; nothing was moved "
            "(--registry-only moves the aliases alone)"
        )
    return list(wanted.values())


def _choose(name: str, version: str | None) -> tuple[ReleaseDirectory, Manifest]:
    """A release by its name and version; without one, the newest."""
    found = find_releases(RELEASES, name)
    chosen = [one for one in found if version in (None, one[1].version)]
    if not chosen:
        known = ", ".join(manifest.version for _, manifest in found[-5:]) or f"none of {name}"
        raise ConfigError(f"{RELEASES}/{name}-{version or '*'}: there is no such release; there are: {known}")
    return chosen[-1]


def _find(title: str) -> tuple[ReleaseDirectory, Manifest]:
    """A release by the name of its directory, by its path, or the newest of a name."""
    found = find_releases(RELEASES)
    chosen = [one for one in found if title.rstrip("/") in (one[1].title, str(one[0].path), one[1].name)]
    if not chosen:
        known = ", ".join(manifest.title for _, manifest in found[-5:]) or "none"
        raise ConfigError(f"{title}: there is no such release; the last ones are: {known}")
    return chosen[-1]


def _open_store(manifest: Manifest, uri: str | None) -> "Store":
    """The store that a release is registered in, which is never made here: a new one has no versions to point to."""
    if uri is None and not manifest.tracking.mlflow:
        raise ConfigError(
            f"{manifest.title} was made without MLflow (tracking.mlflow=false): register it in a store with "
            "python -m registry_sync sync --tracking-uri URI, and name that store here with --tracking-uri too"
        )
    # Takes a second to import.
    from registry_sync.store import open_store

    options = replace(manifest.tracking, uri=uri or manifest.tracking.uri)
    return open_store(options, Budget(options.budget_s), may_create=False)
