"""One MLflow server for all tests of a process that ask for one; each uses an experiment of its own."""

from collections.abc import Iterator

import pytest
from mlflow_server import Server, run_tracking_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_tracking_server(tmp_path_factory.mktemp("server")) as running:
        yield running
