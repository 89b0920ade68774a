"""What `import exporter` costs and promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import exporter

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "numpy", "hydra", "omegaconf", "mlflow", "dvc")


def run_python(code):
    root = Path(exporter.__file__).parents[1]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout


def test_importing_exporter_imports_no_heavy_library():
    loaded = run_python("import sys, exporter; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "exporter" in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_a_spec_and_a_result_are_read_without_torch(perceptron):
    code = (
        "import sys; from pathlib import Path; import exporter;"
        f"d = exporter.ExportDirectory(Path({str(perceptron.directory.path)!r}));"
        "print(d.read_spec().id, d.read_result().status, 'torch' in sys.modules)"
    )
    assert run_python(code).split() == ["tiny", "passed", "False"]


@pytest.mark.parametrize("name", exporter.__all__)
def test_every_public_name_is_there(name):
    assert hasattr(exporter, name)


@pytest.mark.parametrize("library", ["hydra", "omegaconf", "mlflow", "dvc", "pipeline", "registry_sync"])
def test_no_module_of_exporter_imports_what_it_must_not_know(library):
    for path in Path(exporter.__file__).parent.rglob("*.py"):
        lines = path.read_text().splitlines()
        found = [line for line in lines if line.strip().startswith((f"import {library}", f"from {library}"))]
        assert found == [], path
