"""One MLflow server for all tests of a process that ask for one, and for each test a default store of its own."""

import sys
from collections.abc import Iterator

import pytest
from mlflow_server import Server, run_tracking_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_tracking_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget_default_store() -> Iterator[None]:
    """A store in a file becomes the process's default one, which goes before MLFLOW_TRACKING_URI in later tests."""
    yield
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(None)
