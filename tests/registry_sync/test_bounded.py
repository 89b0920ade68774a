import threading
import time

import pytest

from exporter.errors import SyncError
from registry_sync.bounded import Budget, call_bounded


def test_what_the_function_returns_comes_back() -> None:
    assert call_bounded(lambda: 3, Budget(5), "it") == 3


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
