"""What is tried again, what is not, and what the user is told, with a server that misbehaves."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_data import make_run
from fault_proxy import Fault, FaultProxy, run_proxy
from mlflow import MlflowClient

from exporter.errors import SyncError
from registry_sync import mlflow_log, store
from registry_sync.bounded import Budget, call_bounded
from registry_sync.options import TrackingOptions
from registry_sync.store import Store, open_store


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Nothing behind it, and no pauses between tries."""
    monkeypatch.setattr(store, "_PAUSE_S", 0.0)
    with run_proxy() as proxy:
        yield proxy


def complain(uri: str, budget_s: float = 60) -> str:
    with pytest.raises(SyncError) as raised:
        open_store(TrackingOptions(uri=uri), Budget(budget_s))
    return str(raised.value)


@pytest.mark.parametrize(
    ("fault", "tries", "words"),
    [
        (Fault.refused_401, 1, "MLFLOW_TRACKING_USERNAME"),
        (Fault.refused_403, 1, "--allowed-hosts"),
        (Fault.page, 1, "an HTML page; is that the address of an MLflow server?"),
        (Fault.refused_429, 5, "too many 429 error responses"),
        (Fault.refused_500, 5, "too many 500 error responses"),
        (Fault.dropped, 5, "Remote end closed connection without response"),
    ],
)
def test_only_what_may_pass_is_tried_again(proxy: FaultProxy, fault: Fault, tries: int, words: str) -> None:
    proxy.rule = lambda _: fault
    message = complain(proxy.uri)
    assert len(proxy.requests) == tries
    assert words in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_server_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PAUSE_S", 0.0)
    with socket.socket() as taken:
        # Bound, but nobody listens.
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        message = complain(uri)
    assert message.startswith(f"{uri}: API request to {uri}/api/")
    assert message.endswith(": [Errno 111] Connection refused")


def test_a_database_whose_driver_is_not_installed_says_what_to_install() -> None:
    message = complain("mysql+aiomysql://me:hunter2@127.0.0.1/none")
    assert message == (
        "mysql+aiomysql://127.0.0.1/none: ModuleNotFoundError: No module named 'aiomysql'; install what this database "
        "needs, for Postgres: pip install 'psycopg[binary]'"
    )


def test_credentials_of_the_address_are_in_no_message_and_no_exception(proxy: FaultProxy) -> None:
    for fault in (Fault.refused_401, Fault.refused_500, Fault.page):
        proxy.rule = lambda _, fault=fault: fault
        uri = proxy.uri.replace("//", "//me:hunter2@")
        with pytest.raises(SyncError) as raised:
            open_store(TrackingOptions(uri=uri), Budget(60))
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__


def test_a_server_that_hangs_costs_the_budget_and_no_more(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path)
    proxy.rule = lambda _: Fault.hangs
    options = TrackingOptions(uri=proxy.uri)
    budget = Budget(1.0)
    # The proxy hangs for a minute, and the client's own patience would end with other words.
    with pytest.raises(SyncError, match="did not answer in time"):
        call_bounded(lambda: mlflow_log.log_batch(run, run.read_summary(), options, budget), budget, "MLflow")


def test_a_budget_that_is_spent_ends_a_late_thread_at_its_next_call(proxy: FaultProxy) -> None:
    assert "did not answer in time" in complain(proxy.uri, budget_s=0.0)
    assert proxy.requests == []


def test_a_call_that_is_allowed_more_time_gets_it() -> None:
    budget = Budget(0.2)

    def work() -> str:
        budget.extend(30)
        time.sleep(0.5)
        return "done"

    assert call_bounded(work, budget, "MLflow") == "done"


def test_many_requests_that_are_answered_at_once_do_not_use_up_the_budget(tmp_path: Path) -> None:
    opened = Store("sqlite://", MlflowClient(f"sqlite:///{tmp_path}/unused.db"), "0", Budget(0.3))
    for _ in range(30):
        opened.call(time.sleep, 0.02)


def test_requests_that_take_long_do(tmp_path: Path) -> None:
    opened = Store("sqlite://", MlflowClient(f"sqlite:///{tmp_path}/unused.db"), "0", Budget(0.3))
    opened.call(time.sleep, 0.5)
    with pytest.raises(SyncError, match="did not answer in time"):
        opened.call(time.sleep, 0)


def test_what_is_done_meanwhile_is_not_the_services_fault() -> None:
    budget = Budget(0.1)
    with budget.paused():
        time.sleep(0.2)
    budget.require_left()
