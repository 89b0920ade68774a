"""Moves aliases in MLflow's registry: for all models of a release, or for none; and back.

MLflow moves one alias at a time. So what is about to be moved is written down first, in
releases/<name>.promotions.json, and a command that finds a move that was cut off puts it back before it does anything
else. The same file says what to go back to. It belongs into git, beside the releases.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from mlflow.exceptions import MlflowException

from exporter.errors import ConfigError, GateError, SyncError
from exporter.files import read_json, write_json
from exporter.plain_data import from_plain
from registry_sync.bounded import Budget
from registry_sync.redaction import redact
from registry_sync.release_manifest import Manifest, ReleaseDirectory, Verdict
from registry_sync.release_registration import name_membership
from registry_sync.store import Store

__all__ = ["Move", "Promotion", "Promotions", "mend", "promote", "roll_back"]

# What MLflow has for an alias, and what it keeps for itself.
_ALIAS = re.compile(r"(?!latest$|v\d+$)[\w-]{1,255}", re.IGNORECASE)
# To put back what was moved, when MLflow has just failed and the rest of the budget may be short.
_PUT_BACK_S = 60.0


class State(StrEnum):
    """How far a promotion is."""

    moving = "moving"
    done = "done"
    # Cut off, or failed midway: as if it had never been.
    put_back = "put_back"
    rolling_back = "rolling_back"
    rolled_back = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One alias of one registered model."""

    export: str
    name: str
    # Versions; None: there was no such alias.
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One `promote`, and what became of it."""

    at: str
    alias: str
    # The release's version.
    version: str
    state: State
    moves: list[Move]


class Promotions:
    """The promotions of the releases of one name, oldest first.

    Args:
        root: Where releases are, whose lock the caller holds.
        name: Of the release.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._name = name
        self._path = root / f"{name}.promotions.json"
        try:
            data = read_json(self._path)
        except FileNotFoundError:
            data = []
        self.all: list[Promotion] = from_plain(list[Promotion], data, str(self._path))

    def add(self, promotion: Promotion) -> int:
        """Write one down; returns its place in `all`."""
        self.all.append(promotion)
        self._write()
        return len(self.all) - 1

    def find_last(self, alias: str) -> int:
        """Where the last promotion to an alias is that still stands.

        Raises:
            ConfigError: There is none.
        """
        standing = [index for index, one in enumerate(self.all) if (one.alias, one.state) == (alias, State.done)]
        if not standing:
            raise ConfigError(f"{self._name}: there is no promotion to {alias} to go back from")
        return standing[-1]

    def set_state(self, index: int, state: State) -> None:
        self.all[index] = replace(self.all[index], state=state)
        self._write()

    def _write(self) -> None:
        write_json(self._path, self.all, is_durable=True)


def promote(
    store: Store, root: Path, release: tuple[ReleaseDirectory, Manifest], alias: str, *, partial: bool = False
) -> Iterator[str]:
    """Point an alias of each model of a release to its version; yields lines for the user.

    Args:
        store: Where the release is registered.
        root: Where releases are, whose lock the caller holds.
        release: Which.
        alias: For example champion.
        partial: Also of a release that did not pass, the models that were accepted.

    Raises:
        GateError: The release did not pass, or has nothing to promote.
        ConfigError: No alias can be called so; or the store has other models under these versions: the release is
            registered in another one.
        SyncError: It is not registered, or MLflow did not move an alias; those that were moved are put back.
    """
    if not _ALIAS.fullmatch(alias):
        raise ConfigError(f"{alias!r}: letters, digits, underscore and dash only, and neither latest nor v1, v2, ...")
    directory, manifest = release
    refused = [model.id for model in manifest.models if not model.verdict.is_good]
    if refused and not partial:
        raise GateError(
            f"{manifest.title} did not pass ({', '.join(refused[:5])}); see {directory.page}, "
            "or promote those that were accepted with --partial"
        )
    accepted = [model.id for model in manifest.models if model.verdict is Verdict.accepted]
    if not accepted:
        raise GateError(f"{manifest.title} has no model that was accepted; nothing was promoted; see {directory.page}")
    promotions = Promotions(root, manifest.name)
    yield from mend(store, promotions)
    registration = directory.read_registration()
    if registration is None:
        raise SyncError(f"{manifest.title} is not registered yet: python -m registry_sync sync")
    wanted = [
        Move(export=one, name=name, before=_read_alias(store, name, alias), after=registration.versions[one])
        for one in accepted
        if (name := registration.names[one])
    ]
    moves = [move for move in wanted if move.before != move.after]
    if not moves:
        yield f"{manifest.title} is {alias} already"
        return
    for move in moves:
        _require_released(store, manifest, move)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = Promotion(at=now, alias=alias, version=manifest.version, state=State.moving, moves=moves)
    index = promotions.add(entry)
    try:
        for move in moves:
            _point(store, move.name, alias, move.after)
    except SyncError as error:
        _put_back(store, promotions, index)
        raise SyncError(f"nothing was promoted: {error}") from error
    promotions.set_state(index, State.done)
    yield from (f"{move.name}@{alias}: version {move.before or 'none'} -> {move.after}" for move in moves)
    yield f"{manifest.title} is {alias}: {len(accepted)} models, {len(moves)} moved"


def roll_back(store: Store, root: Path, name: str, alias: str, placing: Iterator[str]) -> Iterator[str]:
    """Undo the last promotion to an alias that still stands; yields lines for the user.

    Args:
        store: Where the release is registered.
        root: Where releases are, whose lock the caller holds.
        name: Of the release.
        alias: For example champion.
        placing: Puts the bytes in place as it is read, which can be repeated; its lines are passed on. Before any alias
            moves: where it fails the promotion still stands, and the next rollback undoes this one, not the one before.

    Raises:
        ConfigError: There is none, or an alias has been moved by somebody else since.
        SyncError: MLflow did not move an alias back; those that were are put forward again.
    """
    promotions = Promotions(root, name)
    index = promotions.find_last(alias)
    undone = promotions.all[index]
    for move in undone.moves:
        now = _read_alias(store, move.name, alias)
        if now != move.after:
            raise ConfigError(
                f"{move.name}@{alias} is version {now or 'none'}, and the last promotion made it {move.after}: "
                "somebody has moved it since; nothing was moved"
            )
    yield from placing
    promotions.set_state(index, State.rolling_back)
    try:
        for move in undone.moves:
            _point(store, move.name, alias, move.before)
    except SyncError as error:
        _put_forward(store, promotions, index)
        raise SyncError(f"no alias was rolled back: {error}; the same command again goes on from there") from error
    promotions.set_state(index, State.rolled_back)
    yield from (f"{move.name}@{alias}: version {move.after} -> {move.before or 'none'}" for move in undone.moves)


def mend(store: Store, promotions: Promotions) -> Iterator[str]:
    """Undo what an earlier command began and did not end; yields lines for the user.

    Raises:
        SyncError: MLflow did not take it.
    """
    for index, one in enumerate(promotions.all):
        if one.state is State.moving:
            _put_back(store, promotions, index)
            yield f"a promotion of {one.version} to {one.alias} was cut off; it is put back"
        elif one.state is State.rolling_back:
            _put_forward(store, promotions, index)
            yield f"a rollback from {one.version} was cut off; {one.alias} is as it was before it"


def _require_released(store: Store, manifest: Manifest, move: Move) -> None:
    """Hold a version against what its registration has written on it; numbers alone are the same in every store."""
    model = manifest.find(move.export)
    assert model is not None
    wanted = {f"modelpress.sha256.{file.path}": file.sha256 for file in model.model_files}
    try:
        tags = store.call(_read_tags, store, move.name, move.after)
    except SyncError as error:
        raise SyncError(f"nothing was promoted: {move.name} version {move.after}: {error}") from error
    if name_membership(manifest) not in tags or any(tags.get(name) != value for name, value in wanted.items()):
        raise ConfigError(
            f"{move.name} version {move.after} is not what {manifest.title} has, in {redact(store.uri)}: is it "
            "registered in another store? (--tracking-uri); nothing was promoted"
        )


def _read_tags(store: Store, name: str, version: str) -> dict[str, str]:
    try:
        return dict(store.client.get_model_version(name, version).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def _put_back(store: Store, promotions: Promotions, index: int) -> None:
    entry = promotions.all[index]
    _move_all(store, entry.alias, [(move.name, move.before) for move in entry.moves])
    promotions.set_state(index, State.put_back)


def _put_forward(store: Store, promotions: Promotions, index: int) -> None:
    entry = promotions.all[index]
    _move_all(store, entry.alias, [(move.name, move.after) for move in entry.moves])
    promotions.set_state(index, State.done)


def _move_all(store: Store, alias: str, targets: Sequence[tuple[str, str | None]]) -> None:
    patient = Store(store.uri, store.client, store.experiment_id, Budget(_PUT_BACK_S))
    for name, version in targets:
        try:
            _point(patient, name, alias, version)
        except SyncError as error:
            raise SyncError(
                f"{name}@{alias} could not be put back to version {version or 'none'}: {error}; the next promote or "
                "rollback tries again"
            ) from error


def _point(store: Store, name: str, alias: str, version: str | None) -> None:
    if version is None:
        store.call(_remove_alias, store, name, alias)
    else:
        store.call(store.client.set_registered_model_alias, name, alias, version)


def _remove_alias(store: Store, name: str, alias: str) -> None:
    # An error in some stores where there is none.
    if _find_alias(store, name, alias) is not None:
        store.client.delete_registered_model_alias(name, alias)


def _read_alias(store: Store, name: str, alias: str) -> str | None:
    return store.call(_find_alias, store, name, alias)


def _find_alias(store: Store, name: str, alias: str) -> str | None:
    try:
        version = store.client.get_registered_model(name).aliases.get(alias)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return None if version is None else str(version)
