"""Every kind of change is planted in a project with three published exports: exactly those that it affects are due."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.spec import ExportOptions, ExportSpec, Fill, FillKind, Input, ModelSpec, Precision, PrecisionName
from exporter.versions import library_versions
from pipeline import fingerprint
from pipeline.config import Config
from pipeline.fingerprint import take_fingerprint
from pipeline.plan import Job, Planner
from pipeline.source_code import forget_sources

FILES = {
    "st_zoo/__init__.py": "SCALE = 2\n",
    "st_zoo/plain.py": "class Net: ...\n",
    "st_zoo/rich/__init__.py": "from .net import Net\n",
    "st_zoo/rich/net.py": """
import json
from . import layers
from ..shared import *
class Net:
    def forward(self, x):
        if x:
            try:
                pass
            except ValueError:
                import st_late
        match x:
            case 1:
                from st_matched import y
""",
    "st_zoo/rich/layers.py": "import st_dist, st_single\n",
    "st_zoo/shared/__init__.py": "__all__ = ['listed']\n",
    "st_zoo/shared/listed.py": "",
    "st_zoo/shared/unlisted.py": "",
    "st_late.py": "",
    "st_matched.py": "",
    "st_native.so": "machine code",
    "st_inputs.py": "import st_native\ndef make(): ...\n",
    "st_table.py": "def make(): ...\n",
    "data/pixels.npy": "numbers",
    "data/vocabulary.txt": "words",
    "checkpoint/config.json": "{}",
    "checkpoint/model.safetensors": "weights of a folder",
    "checkpoint/more/unused": "",
    "weights.pt": "weights",
    "library/st_single.py": "",
    "library/st_dist/__init__.py": "",
    "library/st_dist/inner.py": "",
    "library/st_dist-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: st_dist\nVersion: 1.0\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "site-packages" / name.removeprefix("library/") if "library" in name else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    forget_all()
    for spec in make_specs():
        publish_export(spec)
    yield tmp_path
    forget_all()


def forget_all() -> None:
    """As in a process of its own."""
    forget_sources()
    for function in (
        fingerprint._distribution_version,
        fingerprint._distributions,
        fingerprint._hash_own_code,
        library_versions,
    ):
        function.cache_clear()


def make_specs() -> list[ExportSpec]:
    """One that depends on everything, one on a checkpoint, one on next to nothing."""
    inputs = {"x": Input([1], fill=Fill(FillKind.file, path="data/pixels.npy"))}
    rich = ModelSpec(
        name="rich",
        source={
            "_target_": "st_zoo.rich.Net",
            "tokenizer": {"_target_": "st_dist.inner.Tokenizer", "files": ["data/vocabulary.txt"]},
            "activation": "gelu",
            "pretrained": "checkpoint",
        },
        inputs=inputs,
        input_factory={"_target_": "st_inputs.make"},
    )
    weighted = ModelSpec(
        name="weighted", source={"_target_": "st_zoo.plain.Net"}, inputs={"x": Input([1])}, weights="weights.pt"
    )
    plain = ModelSpec(name="plain", source={"_target_": "st_zoo.plain.Net"}, inputs={"x": Input([1])})
    precision = Precision(PrecisionName.fp32)
    table = ExportOptions(opset_version=18, custom_translation_table={"_target_": "st_table.make"})
    return [
        ExportSpec("rich", rich, precision, table),
        ExportSpec("weighted", weighted, precision),
        ExportSpec("plain", plain, precision),
    ]


def publish_export(spec: ExportSpec) -> None:
    directory = ExportDirectory(Path("exports") / spec.id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(b"a graph")
    write_json(directory.spec, spec)
    write_json(directory.fingerprint, take_fingerprint(spec))
    write_result(directory, describe_result(spec, None, time.time(), files=directory.record_files()))


def find_due(specs: list[ExportSpec]) -> dict[str, str]:
    """Which are due, and why."""
    forget_all()
    config = Config(model=specs[0].model, precision=specs[0].precision)
    planner = Planner(config)
    for spec in specs:
        planner.add(Job(spec, config))
    return {plan.spec.id: plan.reason for plan in planner.finish() if plan.reason}


def append(name: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        with (project / name).open("a") as file:
            file.write("\n# changed")

    return change


def upgrade(name: str, version: str) -> Callable[[Path], None]:
    """Another version of an installed distribution, as its metadata says."""

    def change(project: Path) -> None:
        folder = project / "site-packages" / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for old in (project / "site-packages").glob(f"{name}-1.0.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()

    return change


EVERYTHING = ("rich", "weighted", "plain")
CHANGES = [
    (append("st_zoo/rich/net.py"), {"rich": "code changed: net.py"}),
    (append("st_zoo/rich/layers.py"), {"rich": "code changed: layers.py"}),
    (append("st_zoo/rich/__init__.py"), {"rich": "code changed: st_zoo/rich/__init__.py"}),
    (append("st_zoo/__init__.py"), dict.fromkeys(EVERYTHING, "code changed: st_zoo/__init__.py")),
    (append("st_zoo/plain.py"), dict.fromkeys(("weighted", "plain"), "code changed: plain.py")),
    (append("st_zoo/shared/listed.py"), {"rich": "code changed: listed.py"}),
    (append("st_zoo/shared/unlisted.py"), {}),
    (append("st_late.py"), {"rich": "code changed: st_late.py"}),
    (append("st_matched.py"), {"rich": "code changed: st_matched.py"}),
    (append("st_native.so"), {"rich": "code changed: st_native.so"}),
    (append("st_inputs.py"), {"rich": "code changed: st_inputs.py"}),
    (append("st_table.py"), {"rich": "code changed: st_table.py"}),
    (append("data/pixels.npy"), {"rich": "data changed: pixels.npy"}),
    (append("data/vocabulary.txt"), {"rich": "data changed: vocabulary.txt"}),
    (append("checkpoint/model.safetensors"), {"rich": "data changed: model.safetensors"}),
    (append("checkpoint/more/unused"), {}),
    (append("weights.pt"), {"weighted": "weights changed"}),
    (append("site-packages/st_dist/inner.py"), {}),
    (append("site-packages/st_single.py"), {"rich": "code changed: st_single"}),
    (upgrade("st_dist", "1.1"), {"rich": "st_dist 1.0 -> 1.1"}),
    *[
        (
            upgrade(name, "99.0"),
            dict.fromkeys(EVERYTHING, f"{name} {library_versions()[name]} -> 99.0"),
        )
        for name in ("modelpress", "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")
    ],
]


def name_case(value: object) -> str:
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return " ".join(cell for cell in cells if isinstance(cell, str))


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=name_case)
def test_a_change_makes_due_what_it_affects_and_nothing_else(project, change, expected):
    assert find_due(make_specs()) == {}
    change(project)
    assert find_due(make_specs()) == expected


def test_a_changed_key_makes_its_own_export_due(project):
    specs = make_specs()
    specs[0].export.opset_version = 21
    assert find_due(specs) == {"rich": "opset_version 18 -> 21"}


def test_a_touch_a_copy_and_other_times_make_nothing_due(project):
    for path in project.rglob("*"):
        os.utime(path, (1, 1))
    assert find_due(make_specs()) == {}
    copy = project / "copy"
    copy.write_bytes((project / "weights.pt").read_bytes())
    copy.replace(project / "weights.pt")
    assert find_due(make_specs()) == {}


@pytest.mark.parametrize(
    "name",
    ["TORCH_ONNX_ENABLE_DRAFT_EXPORT", "TORCHLIB_EXPERIMENTAL_PREFER_TRACING", "TORCH_COMPILE_DISABLE"],
)
def test_a_switch_of_the_exporters_in_the_environment_makes_all_due(project, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert find_due(make_specs()) == dict.fromkeys(EVERYTHING, f"{name} nothing -> 1")


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "OMP_NUM_THREADS", "HOME", "TORCH_LOGS", "CUDA_VISIBLE_DEVICES"])
def test_what_leaves_an_export_as_it_is_makes_nothing_due(project, monkeypatch, name):
    monkeypatch.setenv(name, "7")
    assert find_due(make_specs()) == {}


def test_a_new_file_where_a_text_names_one_makes_the_export_due(project):
    (project / "gelu").write_text("now a file of the name of an argument")
    assert find_due(make_specs()) == {"rich": "data changed: gelu"}


def test_the_folder_that_the_project_lies_in_is_no_data(project):
    specs = make_specs()
    specs[2].model.source["root"] = "."
    assert [key for key in take_fingerprint(specs[2]) if key.startswith("data.")] == []
