"""What a second run does, in a clone in which some exports are there already."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from project import Project, copy_project

_RUN_WITHOUT_TORCH = """
import sys
from pipeline.cli import run
code = run(["pipeline", "-m", "+model=mlp,two_tower"])
loaded = sorted({"torch", "onnx", "onnxruntime", "transformers", "mlflow", "dvc"} & set(sys.modules))
print("LOADED", loaded)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_project(tmp_path_factory.mktemp("second"))
    done = project.run("-m", "+model=mlp,two_tower")
    assert done.returncode == 0, done.stdout + done.stderr
    project.git("add", "-A")
    project.git("commit", "-qm", "exports")
    return project


def test_a_run_with_nothing_to_do_starts_no_worker_and_loads_nothing_heavy(project: Project) -> None:
    done = project.python("-c", _RUN_WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    assert project.outcomes() == {"mlp": "up_to_date", "two_tower": "up_to_date"}


def test_dvc_repro_exports_what_changed_and_only_that(project: Project) -> None:
    config = project.path / "conf/model/mlp.yaml"
    before = (project.path / "exports/two_tower/result.json").read_bytes()
    config.write_text(config.read_text().replace("max: 1024", "max: 512"))
    done = project.dvc("repro", "export@mlp", "export@two_tower")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "max 1024 -> 512" in done.stdout
    assert project.read_json("exports/mlp/result.json")["dims"][0]["proven_sizes"][-1] == 512
    assert (project.path / "exports/two_tower/result.json").read_bytes() == before
    assert "up to date" in project.dvc("status", "export@mlp", "export@two_tower").stdout
    difference = project.dvc("metrics", "diff", "--json")
    assert difference.returncode == 0
    assert "metrics/mlp.json" in difference.stdout
    assert "metrics/two_tower.json" not in difference.stdout


def test_a_damaged_export_is_told_by_verify_and_made_again(project: Project) -> None:
    model = project.path / "exports/two_tower/model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    verified = project.python("-m", "registry_sync", "verify")
    assert verified.returncode == 7
    assert "two_tower: model.onnx" in verified.stderr
    done = project.run("+model=two_tower")
    assert done.returncode == 0, done.stderr
    assert "published bytes changed: model.onnx" in done.stdout
    assert project.python("-m", "registry_sync", "verify").returncode == 0


def test_a_variant_does_not_replace_the_models_own_export(project: Project) -> None:
    before = (project.path / "exports/mlp/model.onnx").read_bytes()
    done = project.run("-m", "+model=mlp", "export.opset_version=18,21", "model.dims.batch.max=128")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"mlp-opset18-dims.batch.max_128", "mlp-opset21-dims.batch.max_128"} <= project.published()
    assert (project.path / "exports/mlp/model.onnx").read_bytes() == before
    assert "2 of 2 exports committed" in done.stdout
    assert (project.path / "exports/mlp-opset18-dims.batch.max_128.dvc").is_file()


def test_an_override_reaches_a_key_that_the_file_leaves_at_its_default(project: Project) -> None:
    done = project.run("+model=mlp", "model.inputs.tensor_x.fill.kind=uniform", "tracking=off")
    assert done.returncode == 0, done.stderr
    (name,) = [name for name in project.published() if "uniform" in name]
    spec = project.read_json(f"exports/{name}/spec.json")
    assert spec["model"]["inputs"]["tensor_x"]["fill"]["kind"] == "uniform"


def test_logging_a_batch_twice_changes_nothing(project: Project) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{project.path}/mlflow.db")
    experiment = client.get_experiment_by_name("modelpress").experiment_id
    before = sorted(run.info.run_id for run in client.search_runs([experiment]))
    done = project.python("-m", "registry_sync", "sync", *(str(run) for run in project.runs()))
    assert done.returncode == 0, done.stderr
    assert sorted(run.info.run_id for run in client.search_runs([experiment])) == before


def test_bytes_are_the_same_in_another_folder(project: Project, folder: Project) -> None:
    assert folder.run("+model=two_tower", "tracking=off", PYTHONHASHSEED="7").returncode == 0
    for name in ("model.onnx", "model.onnx.data"):
        here, there = (Path(place.path, "exports/two_tower", name) for place in (project, folder))
        assert here.exists() == there.exists()
        assert not here.exists() or here.read_bytes() == there.read_bytes()
