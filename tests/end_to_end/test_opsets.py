"""Every model of the zoo, at every opset that the README calls proven: exported, checked, and equal to PyTorch."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import onnx
import pytest
import yaml
from opset_exports import export_at_opsets

from exporter.result import ExportResult
from exporter.validation import PROVEN_OPSETS

MODELS = yaml.safe_load((Path(__file__).parents[2] / "conf/release/zoo.yaml").read_text())["release"]["models"]
OPSETS = list(range(PROVEN_OPSETS[0], PROVEN_OPSETS[1] + 1))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[ExportResult]]]:
    """All of them; in two processes that each import torch and transformers once."""
    path = tmp_path_factory.mktemp("opsets")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pending = {model: pool.submit(export_at_opsets, model, OPSETS, path) for model in MODELS}
        return path, {model: future.result() for model, future in pending.items()}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("model", MODELS)
def test_a_zoo_model_passes_at_a_proven_opset(
    exported: tuple[Path, dict[str, list[ExportResult]]], model: str, opset: int
) -> None:
    path, results = exported
    result = results[model][OPSETS.index(opset)]
    assert result.failure is None
    assert len(result.cases) > 1
    saved = onnx.load(path / result.id / "model.onnx", load_external_data=False)
    assert {entry.domain: entry.version for entry in saved.opset_import}[""] == opset
