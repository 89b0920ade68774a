"""Who may import whom; docs/architecture.md has the reasons."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("exporter", "pipeline", "registry_sync", "hydra_plugins", "conf")
ALLOWED = {
    "exporter": {"exporter"},
    "registry_sync": {"registry_sync", "exporter"},
    "pipeline": {"pipeline", "registry_sync", "exporter"},
    "hydra_plugins": {"hydra_plugins"},
    "conf": set(),
}
FOREIGN = {
    "exporter": {"hydra", "omegaconf", "mlflow", "dvc", "rich"},
    "registry_sync": {"hydra", "omegaconf", "torch", "onnx", "onnxruntime", "onnxscript"},
    "pipeline": {"torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "mlflow", "dvc"},
    "hydra_plugins": {"torch", "onnx", "mlflow", "dvc"},
    "conf": set(),
}
PLAIN = (
    *(
        "spec",
        "evidence",
        "result",
        "errors",
        "plain_data",
        "files",
        "directory",
        "cases",
        "suggestion",
        "checkpoint",
        "cuda",
    ),
    "readiness",
    "targets",
    "limits",
)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module or ""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_packages_run_one_way(package: str) -> None:
    for path in sources(package):
        own = {name.split(".")[0] for name in imports_of(path)} & set(PACKAGES)
        assert own <= ALLOWED[package], path


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_keeps_to_its_own_libraries(package: str) -> None:
    for path in sources(package):
        used = {name.split(".")[0] for name in imports_of(path)}
        assert not used & FOREIGN[package], path


@pytest.mark.parametrize("module", PLAIN)
def test_plain_data_imports_the_standard_library_alone(module: str) -> None:
    names = {name.split(".")[0] for name in imports_of(ROOT / "exporter" / f"{module}.py")}
    assert names <= {*sys.stdlib_module_names, "exporter"}


def test_nothing_imports_the_zoo() -> None:
    for package in PACKAGES:
        for path in sources(package):
            if path.is_relative_to(ROOT / "exporter/zoo"):
                continue
            assert not [name for name in imports_of(path) if name.startswith("exporter.zoo")], path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("exporter", {"torch", "onnx", "onnxruntime", "hydra", "mlflow", "dvc"}),
        ("pipeline.__main__", {"torch", "hydra", "mlflow", "rich"}),
        ("pipeline.cli", {"torch", "onnx", "onnxruntime", "mlflow", "dvc", "jinja2"}),
        ("registry_sync.__main__", {"torch", "onnx", "mlflow", "dvc", "hydra"}),
        ("registry_sync.mlflow_log", {"torch", "onnxruntime", "hydra", "dvc"}),
        ("exporter.worker", {"torch", "mlflow", "dvc", "hydra"}),
        ("exporter.readiness", {"torch", "onnx", "onnxruntime", "numpy"}),
        ("exporter.template", {"mlflow", "dvc", "hydra"}),
        ("exporter.sequence", {"mlflow", "dvc", "hydra"}),
    ],
)
def test_a_process_loads_no_more_than_it_needs(module: str, unwanted: set[str]) -> None:
    program = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not unwanted & set(done.stdout.split())


def test_files_can_be_read_in_one_sitting() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert len(path.read_text().splitlines()) <= 320, path
