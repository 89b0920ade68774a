"""Failures over releases: which are new, which were declared, which come and go. Told apart by their fingerprints."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from exporter.errors import FailureKind
from exporter.result import Failure
from registry_sync.record import ENDED, ExportRecord
from registry_sync.release_manifest import Manifest, ReleasedModel, Verdict
from registry_sync.release_options import KnownFailure

__all__ = ["History", "LedgerEntry", "add_history", "find_known", "is_excused", "list_failures"]

# Further back a failure has most likely been another one.
_MAX_RELEASES = 30
# States of failures that the newest release does not have.
_PAST = ("fixed", "replaced", "gone")


class History(StrEnum):
    """In what way a failure is one."""

    # The model did not have it in any release that is looked at.
    new = "new"
    # It was there in the last release, and nobody has declared it.
    recurring = "recurring"
    # It had gone and is back; or the very same export (same code, config and versions) has passed and has failed.
    flaky = "flaky"
    # Declared in the release's config; does not fail the release.
    known = "known"
    # Declared, and the day is past; fails the release again.
    expired = "expired"
    # Of a model that failed in the last release, and passes.
    fixed = "fixed"


@dataclass(frozen=True)
class LedgerEntry:
    """One failure of one export over releases."""

    export: str
    fingerprint: str
    kind: FailureKind
    cause: str
    # Versions of the first and the last release that had it, and how many had.
    first: str
    last: str
    num_releases: int
    # As of the newest release: one of History; replaced where the export fails otherwise by now, gone where it is not
    # in it.
    state: str
    issue: str = ""
    expires: str = ""


def find_known(known: Sequence[KnownFailure], export: str, failure: Failure) -> KnownFailure | None:
    """The declaration of a failure, expired or not; of several the one that lasts longest."""
    found = [one for one in known if (one.export, one.fingerprint) == (export, failure.fingerprint)]
    return max(found, key=lambda one: one.expires, default=None)


def is_excused(export: ExportRecord, known: Sequence[KnownFailure], today: date) -> bool:
    """Whether an export of a batch failed as was declared."""
    if export.failure is None or export.outcome not in ENDED:
        return False
    declared = find_known(known, export.id, export.failure)
    return declared is not None and today <= date.fromisoformat(declared.expires)


def add_history(
    model: ReleasedModel, earlier: Sequence[Manifest], known: Sequence[KnownFailure], today: date
) -> ReleasedModel:
    """The model with what earlier releases say of its failure, and the verdict that follows.

    Args:
        model: Of the release that is being made.
        earlier: Releases of that name, oldest first.
        known: Declared failures.
        today: In UTC.
    """
    last = _find_last(model.id, earlier)
    if model.failure is None:
        if last is None or last.failure is None:
            return model
        history = History.flaky if last.fingerprint == model.fingerprint else History.fixed
        return replace(model, failure_history=history.value)
    declared = find_known(known, model.id, model.failure)
    if declared is not None:
        is_valid = today <= date.fromisoformat(declared.expires)
        return replace(
            model,
            verdict=Verdict.known_failure if is_valid else Verdict.failed,
            failure_history=(History.known if is_valid else History.expired).value,
            issue=declared.issue,
            expires=declared.expires,
        )
    return replace(model, failure_history=_judge(model, model.failure, last, earlier).value)


def list_failures(releases: Sequence[Manifest]) -> list[LedgerEntry]:
    """Every failure of the last releases, those of the newest first.

    Args:
        releases: Of one name, oldest first.
    """
    recent = releases[-_MAX_RELEASES:]
    seen: dict[tuple[str, str], list[tuple[Manifest, ReleasedModel]]] = {}
    for manifest in recent:
        for model in manifest.models:
            if model.failure is not None:
                seen.setdefault((model.id, model.failure.fingerprint), []).append((manifest, model))
    entries = [_make_entry(found, recent[-1]) for found in seen.values()]
    return sorted(entries, key=lambda one: (one.state in _PAST, one.export, one.fingerprint))


def _make_entry(found: list[tuple[Manifest, ReleasedModel]], newest: Manifest) -> LedgerEntry:
    manifest, model = found[-1]
    assert model.failure is not None
    now = newest.find(model.id)
    if manifest is newest:
        state = model.failure_history
    elif now is None:
        state = "gone"
    else:
        state = History.fixed.value if now.failure is None else "replaced"
    return LedgerEntry(
        export=model.id,
        fingerprint=model.failure.fingerprint,
        kind=model.failure.kind,
        cause=model.failure.cause,
        first=found[0][0].version,
        last=manifest.version,
        num_releases=len(found),
        state=state,
        issue=model.issue,
        expires=model.expires,
    )


def _find_last(export: str, earlier: Sequence[Manifest]) -> ReleasedModel | None:
    return earlier[-1].find(export) if earlier else None


def _judge(model: ReleasedModel, failure: Failure, last: ReleasedModel | None, earlier: Sequence[Manifest]) -> History:
    if last is not None and _has(last, failure):
        return History.recurring
    known = [one for manifest in earlier[-_MAX_RELEASES:] if (one := manifest.find(model.id)) is not None]
    had_passed = any(one.failure is None and one.fingerprint and one.fingerprint == model.fingerprint for one in known)
    return History.flaky if had_passed or any(_has(one, failure) for one in known) else History.new


def _has(model: ReleasedModel, failure: Failure) -> bool:
    return model.failure is not None and model.failure.fingerprint == failure.fingerprint
