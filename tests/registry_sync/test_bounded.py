import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import SyncError
from registry_sync.bounded import Budget, call_bounded


def test_what_the_function_returns_comes_back() -> None:
    assert call_bounded(lambda: 3, Budget(5), "it") == 3


def test_a_call_that_came_back_leaves_the_rest_of_the_time_to_the_next() -> None:
    budget = Budget(60)
    call_bounded(lambda: 3, budget, "MLflow")
    budget.require_left()


def test_a_call_that_hangs_is_given_up_in_time() -> None:
    released = threading.Event()
    begin = time.monotonic()
    with pytest.raises(SyncError, match="MLflow did not answer in time"):
        call_bounded(released.wait, Budget(0.2), "MLflow")
    assert time.monotonic() - begin < 5
    released.set()


def test_an_exception_becomes_a_sync_error_that_names_it() -> None:
    with pytest.raises(SyncError, match="KeyError: 'run'"):
        call_bounded(lambda: {}["run"], Budget(5), "MLflow")


def call_late(work: Callable[[Budget], object]) -> BaseException | None:
    """Have a function go on after it was given up; returns what it raised then."""
    given_up, ended = threading.Event(), threading.Event()
    raised: list[BaseException] = []
    budget = Budget(0.05)

    def call() -> None:
        given_up.wait(60)
        try:
            work(budget)
        except SyncError as error:
            raised.append(error)
        ended.set()

    with pytest.raises(SyncError, match="did not answer in time"):
        call_bounded(call, budget, "MLflow")
    given_up.set()
    assert ended.wait(60)
    return raised[0] if raised else None


def test_what_was_given_up_writes_nothing_more(tmp_path: Path) -> None:
    def work(budget: Budget) -> None:
        with budget.waited_for():
            (tmp_path / "late").touch()

    assert "did not answer in time" in str(call_late(work))
    assert not (tmp_path / "late").exists()


def test_what_was_given_up_gets_no_more_time() -> None:
    def work(budget: Budget) -> None:
        budget.extend(60)
        budget.require_left()

    assert "did not answer in time" in str(call_late(work))


def test_nothing_is_given_up_in_the_middle_of_what_it_writes() -> None:
    budget = Budget(0.05)
    entered, written = threading.Event(), threading.Event()

    def call() -> None:
        with budget.waited_for():
            entered.set()
            # Past the deadline.
            time.sleep(0.3)
            written.set()

    with contextlib.suppress(SyncError):
        call_bounded(call, budget, "MLflow")
    assert entered.is_set()
    assert written.is_set()


def test_what_is_late_and_not_given_up_may_write() -> None:
    """A command that calls no thread waits for what it has begun, however late it is."""
    with Budget(0.0).waited_for():
        pass
