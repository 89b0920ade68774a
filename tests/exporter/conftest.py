"""One good export, shared by all tests that look at or damage a file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import faulty_models
import pytest
from torch import nn

from exporter import ExportDirectory, ExportResult, ExportSpec
from exporter.build import build_module
from exporter.conductor import run_export


@dataclass(frozen=True)
class Exported:
    """An export that passed."""

    spec: ExportSpec
    module: nn.Module
    directory: ExportDirectory
    result: ExportResult


@pytest.fixture(scope="session")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Treat as read-only; `copied` gives a copy."""
    spec = faulty_models.make_spec(outputs={"y": faulty_models.Output(shape=["n", 16])})
    module = build_module(spec.model)
    path = tmp_path_factory.mktemp("perceptron")
    result = run_export(spec, path, module, threads=1)
    assert result.failure is None
    return Exported(spec, module, ExportDirectory(path), result)


@pytest.fixture
def copied(perceptron: Exported, tmp_path: Path) -> Exported:
    """The good export in a directory of its own, to be damaged."""
    path = tmp_path / "copied"
    shutil.copytree(perceptron.directory.path, path)
    return Exported(perceptron.spec, perceptron.module, ExportDirectory(path), perceptron.result)
