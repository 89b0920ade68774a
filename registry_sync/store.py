"""An experiment of an MLflow store, and patience with it: what may pass is tried again while the budget lasts."""

import logging
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient, set_tracking_uri
from mlflow.exceptions import MlflowException

from exporter.errors import ConfigError, SyncError
from registry_sync.bounded import Budget
from registry_sync.commands import show_command
from registry_sync.options import TrackingOptions
from registry_sync.redaction import redact
from registry_sync.sqlite_store import make_store
from registry_sync.store_errors import describe_error, is_transient

__all__ = ["Store", "default_uri", "open_store"]

T = TypeVar("T")

# Of one call. With pauses of 0.5, 1, 2 and 4 seconds between them they outlast a server's restart.
_MAX_TRIES = 5
_PAUSE_S = 0.5
# An answer that takes no longer is no waiting.
_PROMPT_S = 0.1
_SQLITE = "sqlite:///"
# A driver may be named: postgresql+psycopg2.
_DATABASE_SERVER = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?:")


class Store:
    """Made by `open_store`.

    Args:
        uri: The tracking URI, which may hold credentials.
        client: Of that URI.
        experiment_id: Everything that is logged goes to this experiment.
        budget: For all calls together.
    """

    def __init__(self, uri: str, client: MlflowClient, experiment_id: str, budget: Budget) -> None:
        self.uri = uri
        self.client = client
        self.experiment_id = experiment_id
        self.budget = budget

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a method of the client that can be repeated, more than once if need be.

        A function that makes several requests asks the budget before those that change something: the first may take
        longer than anybody waits.

        Raises:
            SyncError: It failed for good, or too often, or the budget is spent. Without credentials, which also is
                why it is not raised from the error behind it.
        """
        return _call(lambda: function(*arguments, **named), self.budget, remote=self.is_remote)

    @property
    def is_remote(self) -> bool:
        """Whether it is a server, rather than a database that we write to ourselves."""
        return _is_remote(self.uri)

    def describe_place(self) -> str:
        """Where a person looks at the runs, in one or two lines."""
        # The plain link of an experiment opens MLflow's view of traces, which is empty here.
        page = f"/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        if self.is_remote:
            return f"MLflow: {redact(self.uri).rstrip('/')}{page}"
        shown = "sqlite:///mlflow.db" if self.uri == default_uri() else redact(self.uri)
        return (
            f"MLflow: {show_command('mlflow')} ui --backend-store-uri {shown}\n        then http://127.0.0.1:5000{page}"
        )


def default_uri() -> str:
    """Sqlite in the working directory, by its absolute path: a relative one means another file elsewhere."""
    return f"{_SQLITE}{Path('mlflow.db').resolve()}"


def open_store(options: TrackingOptions, budget: Budget | None = None, *, may_create: bool = True) -> Store:
    """Open the experiment, which is created if missing.

    Args:
        options: Where the store is.
        budget: Of all calls; None: what the options say.
        may_create: Make a database file that is not there.

    Raises:
        ConfigError: It is not there and may not be made.
        SyncError: The store cannot be reached or opened.
    """
    uri = options.uri or default_uri()
    if not may_create and uri.startswith(_SQLITE) and not _find_file(uri).exists():
        raise ConfigError(
            f"{redact(uri)}: there is no such file; name the store that the release is registered in (--tracking-uri), "
            "or register it first: python -m registry_sync sync"
        )
    budget = budget or Budget(options.budget_s)
    try:
        client, experiment_id = _call(lambda: _connect(uri, options.experiment), budget, remote=_is_remote(uri))
    except SyncError as error:
        raise SyncError(f"{redact(uri)}: {error}") from None
    if not _is_remote(uri):
        _make_default(uri)
    return Store(uri, client, experiment_id, budget)


def _make_default(uri: str) -> None:
    """Let MLflow's registry in a database find the models of `uri`: it asks the process's default store for them.

    A server does that for itself, and its address may hold credentials.
    """
    # Which set_tracking_uri hands on to subprocesses, and so to workers.
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.pop(name, None)
    set_tracking_uri(uri)
    os.environ.pop(name, None)
    if before is not None:
        os.environ[name] = before


@cache
def _connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client, and the experiment's id. What fails is not cached."""
    # Their words about new tables, and of what comes back as an exception too, are not for our users.
    for name in ("mlflow", "psycopg", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # MLflow repeats requests that create something too, and so creates it twice where only the reply was lost. Set as
    # late as this because workers would inherit it.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    with _lock_database(uri):
        if uri.startswith(_SQLITE) and "?" not in uri:
            make_store(_find_file(uri), lambda new: MlflowClient(tracking_uri=new).get_experiment_by_name(experiment))
        elif _DATABASE_SERVER.match(uri):
            _require_answer(uri)
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            return client, str(found.experiment_id)
        # MLflow's default is relative to whatever directory it happens to run in.
        location = Path("mlruns").resolve().as_uri() if uri.startswith("sqlite:") else None
        try:
            return client, str(client.create_experiment(experiment, artifact_location=location))
        except MlflowException as error:
            # Somebody else has just made it, or it was deleted, which the next call will say.
            found = client.get_experiment_by_name(experiment)
            if found is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return client, str(found.experiment_id)


def _require_answer(uri: str) -> None:
    """Find a database that lets nobody in at once: MLflow tries for 100 seconds, ten times, whatever the reason."""
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.connect():
        pass


def _lock_database(uri: str) -> AbstractContextManager[object]:
    """Two processes that set up one new sqlite file at once leave it broken."""
    if not uri.startswith(_SQLITE):
        return nullcontext()
    path = _find_file(uri)
    if path.is_dir():
        # MLflow would try for minutes.
        raise SyncError("is a directory")
    return FileLock(path.with_name(f".{path.name}.lock"))


def _find_file(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


def _call(function: Callable[[], T], budget: Budget, *, remote: bool) -> T:
    for attempt in range(_MAX_TRIES):
        budget.require_left()
        begin = time.monotonic()
        try:
            answer = function()
            # Hundreds of exports make thousands of requests, and keep nobody waiting where each is answered at once.
            budget.extend(min(time.monotonic() - begin, _PROMPT_S))
            return answer
        except SyncError:
            raise
        except Exception as error:  # noqa: BLE001  (sqlalchemy's and requests' errors come through as they are)
            if attempt == _MAX_TRIES - 1 or not is_transient(error, remote=remote):
                raise SyncError(describe_error(error)) from None
        # Many a client was turned away at the same moment.
        time.sleep(_PAUSE_S * 2**attempt * random.uniform(0.8, 1.2))  # noqa: S311
    raise AssertionError("the last try has returned or raised")


def _is_remote(uri: str) -> bool:
    return uri.startswith(("http:", "https:"))
