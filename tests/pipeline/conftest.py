"""What tests of several modules of the pipeline begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.source_code import forget_sources


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder that modules are found in; what was looked up before is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget_sources()
    yield tmp_path
    forget_sources()
