"""`python -m pipeline +release=zoo` in a fresh clone: what a user finds afterwards, everywhere."""

import hashlib
import json
from pathlib import Path

import mlflow
import onnx
import pytest
import yaml
from mlflow import MlflowClient
from project import Project

MODELS = yaml.safe_load((Path(__file__).parents[2] / "conf/release/zoo.yaml").read_text())["release"]["models"]


@pytest.fixture(scope="module")
def client(zoo: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{zoo.path}/mlflow.db")


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, object]:
    experiment = client.get_experiment_by_name("modelpress")
    found = client.search_runs([experiment.experiment_id])
    return {run.data.tags["mlflow.runName"]: run for run in found}


def test_every_model_of_the_zoo_is_published(zoo: Project) -> None:
    assert zoo.published() == set(MODELS)
    assert len(MODELS) >= 15


@pytest.mark.parametrize("model", MODELS)
def test_every_dynamic_dim_is_proven_at_three_sizes(zoo: Project, model: str) -> None:
    result = zoo.read_json(f"exports/{model}/result.json")
    assert result["dims"], model
    for dim in result["dims"]:
        assert len(dim["proven_sizes"]) >= 3, dim
        assert dim["proven_sizes"][0] == dim["min"]
        assert dim["example"] in dim["proven_sizes"]


@pytest.mark.parametrize("model", MODELS)
def test_declared_dims_are_symbolic_in_the_saved_graph(zoo: Project, model: str) -> None:
    graph = onnx.load(zoo.path / f"exports/{model}/model.onnx", load_external_data=False).graph
    spec = zoo.read_json(f"exports/{model}/spec.json")["model"]
    for value in graph.input:
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert axes == spec["inputs"][value.name]["shape"]


def test_the_output_ends_with_a_table_and_the_two_commands(zoo: Project) -> None:
    out = (zoo.path / ".stdout").read_text()
    table = out[out.index("export  ") :]
    assert all(f"\n{model} " in table for model in MODELS)
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in table
    assert f"dvc metrics show   ({len(MODELS)} of {len(MODELS)} exports committed)" in table
    assert (zoo.path / ".stderr").read_text() == ""


def test_summary_json_has_every_export(zoo: Project) -> None:
    assert zoo.outcomes() == dict.fromkeys(MODELS, "passed")
    assert zoo.last_summary()["release"] == "zoo"


def test_exports_hold_no_path_of_this_machine(zoo: Project) -> None:
    for path in zoo.path.glob("exports/*/model.onnx*"):
        content = path.read_bytes()
        assert str(zoo.path).encode() not in content
        assert b"site-packages" not in content
        assert b"def forward" not in content


def test_mlflow_has_a_run_for_the_batch_and_one_for_each_export(runs: dict[str, object]) -> None:
    assert set(runs) == {"zoo", *MODELS}
    parent = runs["zoo"]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["num_passed"] == len(MODELS)
    note = parent.data.tags["mlflow.note.content"]
    assert all(f"| [{model}](#/experiments/1/runs/{runs[model].info.run_id}) | passed |" in note for model in MODELS)
    assert parent.data.metrics["worst_max_noise_ratio"] > 0
    children = [run for name, run in runs.items() if name != "zoo"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert all(run.info.status == "FINISHED" for run in children)


def test_an_export_run_has_params_metrics_tags_and_true_times(zoo: Project, runs: dict[str, object]) -> None:
    run, result = runs["bert"], zoo.read_json("exports/bert/result.json")
    assert run.data.params["model.dims.seq.max"] == str(result["spec"]["model"]["dims"]["seq"]["max"])
    assert run.data.params["export.opset_version"] == "20"
    assert run.data.metrics["num_nodes"] == result["num_nodes"]
    assert run.data.metrics["capture_s"] == pytest.approx(result["steps"][1]["duration_s"])
    assert 0 < run.data.metrics["max_abs_diff"] < 1e-4
    assert len(run.data.tags["modelpress.fingerprint"]) == 64
    assert run.data.tags["version.torch"].startswith("2.13")
    assert len(run.data.tags["mlflow.source.git.commit"]) >= 40
    assert run.info.end_time - run.info.start_time == pytest.approx(result["duration_s"] * 1000, abs=20)


def test_a_run_has_what_tells_of_the_export(client: MlflowClient, runs: dict[str, object]) -> None:
    names = {item.path for item in client.list_artifacts(runs["mlp"].info.run_id)}
    pages = {"graph.html", "report.html", "report.md"}
    assert names == pages | {"fingerprint.json", "result.json", "spec.json", "worker.log"}


@pytest.mark.parametrize("model", MODELS)
def test_mlflow_has_the_same_bytes_as_the_disk(
    zoo: Project, client: MlflowClient, runs: dict[str, object], model: str
) -> None:
    logged = client.get_logged_model(runs[model].data.tags["modelpress.model_id"])
    folder = Path(mlflow.artifacts.download_artifacts(logged.artifact_location))
    recorded = {file["path"]: file["sha256"] for file in zoo.read_json(f"exports/{model}/result.json")["files"]}
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in recorded} == recorded
    graph = onnx.load(zoo.path / f"exports/{model}/model.onnx", load_external_data=False).graph
    schema = mlflow.models.Model.load(str(folder)).get_input_schema()
    assert schema.input_names() == [value.name for value in graph.input]


def test_dvc_status_is_clean_after_the_batch(zoo: Project) -> None:
    done = zoo.dvc("status")
    assert done.returncode == 0
    assert "up to date" in done.stdout


def test_dvc_metrics_show_every_model(zoo: Project) -> None:
    metrics = json.loads(zoo.dvc("metrics", "show", "--json").stdout)[""]["data"]
    assert {Path(name).stem for name in metrics} == set(MODELS)
    assert metrics["metrics/mlp.json"]["data"]["num_parameters"] == 124


def test_dvc_pushes_the_published_bytes_to_a_local_remote(zoo: Project, tmp_path: Path) -> None:
    assert zoo.dvc("remote", "add", "--local", "-f", "-d", "shelf", str(tmp_path / "remote")).returncode == 0
    done = zoo.dvc("push")
    assert done.returncode == 0, done.stderr
    pushed = {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "remote").rglob("*") if path.is_file()
    }
    assert _sha256_of_model(zoo, "bert") in pushed


def test_dvc_repro_finds_nothing_to_do(zoo: Project) -> None:
    done = zoo.dvc("repro", "--dry")
    assert done.returncode == 0
    assert "up to date" in done.stdout + done.stderr
    assert "Running stage" not in done.stdout


def test_registry_verify_accepts_what_is_published(zoo: Project) -> None:
    done = zoo.python("-m", "registry_sync", "verify")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("exports/")} == {f"exports/{model}: ok" for model in MODELS}
    # And the release.
    assert len(lines) == len(MODELS) + 1


def _sha256_of_model(zoo: Project, model: str) -> str:
    files = zoo.read_json(f"exports/{model}/result.json")["files"]
    return next(file["sha256"] for file in files if file["path"] == "model.onnx")


def test_the_release_is_written_registered_and_its_sums_hold(zoo: Project, client: MlflowClient) -> None:
    (directory,) = (zoo.path / "releases").glob("zoo-*")
    manifest = zoo.read_json(f"releases/{directory.name}/manifest.json")
    assert manifest["passed"]
    assert [model["id"] for model in manifest["models"]] == MODELS
    assert all(model["dvc_hash"] and model["mlflow_model_id"] for model in manifest["models"])
    assert zoo.call("sha256sum", "-c", "--quiet", f"releases/{directory.name}/SHA256SUMS").returncode == 0
    assert {model.name for model in client.search_registered_models() if "candidate" in model.aliases} == set(MODELS)
