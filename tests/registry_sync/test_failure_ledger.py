"""Which failures are new, which were declared, and which come and go."""

from datetime import date

import pytest
from records import FAILED, PASSED
from release_data import make_manifest, make_model

from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.result import Failure, Step
from registry_sync.failure_ledger import add_history, find_known, is_excused, list_failures
from registry_sync.release_manifest import Manifest, ReleasedModel, Verdict
from registry_sync.release_options import KnownFailure

TODAY = date(2026, 11, 24)


def fail(cause: str = "no ONNX function for aten.mystery", **changes: object) -> ReleasedModel:
    failure = make_failure(Step.capture, FailureKind.unsupported_op, cause)
    return make_model(verdict=Verdict.failed, failure=failure, files=[], fingerprint="new", **changes)


def declare(failure: Failure, expires: str, export: str = "mlp") -> KnownFailure:
    return KnownFailure(export, failure.fingerprint, "https://example.org/1", expires)


def release(*models: ReleasedModel) -> list[Manifest]:
    """One release after the other, each with one model."""
    return [make_manifest(version=str(number), models=[model]) for number, model in enumerate(models, 1)]


PASSES = make_model(fingerprint="old")


@pytest.mark.parametrize(
    ("earlier", "history"),
    [
        ([], "new"),
        ([PASSES], "new"),
        ([fail("another one"), PASSES], "new"),
        ([fail()], "recurring"),
        ([fail(), PASSES], "flaky"),
        ([make_model(fingerprint="new")], "flaky"),
    ],
)
def test_a_failure_is_told_by_its_history(earlier: list[ReleasedModel], history: str) -> None:
    judged = add_history(fail(), release(*earlier), [], TODAY)
    assert (judged.failure_history, judged.verdict) == (history, Verdict.failed)


@pytest.mark.parametrize(("fingerprint", "history"), [("newer", "fixed"), ("new", "flaky")])
def test_what_passes_now_is_fixed_or_was_flaky(fingerprint: str, history: str) -> None:
    judged = add_history(make_model(fingerprint=fingerprint), release(fail()), [], TODAY)
    assert (judged.failure_history, judged.verdict) == (history, Verdict.accepted)


def test_what_has_passed_before_has_no_history() -> None:
    assert add_history(PASSES, release(fail(), PASSES), [], TODAY) == PASSES


def test_a_declared_failure_is_let_pass_until_its_day_is_over() -> None:
    failed = fail()
    assert failed.failure is not None
    known = declare(failed.failure, "2026-11-24")
    judged = add_history(failed, release(PASSES), [known], TODAY)
    assert (judged.verdict, judged.failure_history) == (Verdict.known_failure, "known")
    assert (judged.issue, judged.expires) == ("https://example.org/1", "2026-11-24")
    later = add_history(failed, release(PASSES), [known], date(2026, 11, 25))
    assert (later.verdict, later.failure_history) == (Verdict.failed, "expired")


def test_only_the_very_failure_of_the_very_export_is_declared() -> None:
    failed, other = fail(), fail("something else")
    assert failed.failure is not None
    assert other.failure is not None
    known = [declare(failed.failure, "2026-12-01"), declare(failed.failure, "2026-12-31")]
    assert find_known(known, "mlp", failed.failure) is known[1]
    assert find_known(known, "bert", failed.failure) is None
    assert find_known(known, "mlp", other.failure) is None


def test_a_batch_ends_well_if_only_declared_failures_happened() -> None:
    assert FAILED.failure is not None
    known = [declare(FAILED.failure, "2026-11-24", FAILED.id)]
    assert is_excused(FAILED, known, TODAY)
    assert not is_excused(FAILED, known, date(2026, 11, 25))
    assert not is_excused(FAILED, [], TODAY)
    assert not is_excused(PASSED, known, TODAY)


def test_the_ledger_lists_every_failure_with_where_it_was() -> None:
    first, second, other = fail(), fail(failure_history="recurring"), fail("else", failure_history="new")
    still, gone = list_failures(release(first, PASSES, second, other))
    assert (still.cause, still.state, still.first, still.last, still.num_releases) == ("else", "new", "4", "4", 1)
    assert (gone.first, gone.last, gone.num_releases, gone.state) == ("1", "3", 2, "replaced")
    (entry,) = list_failures(release(first, PASSES))
    assert entry.state == "fixed"
    (entry,) = list_failures(release(first, make_model("bert")))
    assert entry.state == "gone"
    assert list_failures([]) == []
