"""A small release from the first night to a rollback: real exports, the real commands, MLflow and DVC."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from project import Project, copy_project

from exporter.files import hash_file

pytestmark = pytest.mark.slow

_CONFIG = """\
# @package _global_
release:
  name: pair
  models: [mlp, two_tower]
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      +model: ${sweep:${release.models}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_project(tmp_path_factory.mktemp("release"))
    (project.path / "conf/release/pair.yaml").write_text(_CONFIG)
    return project


def check_sums(project: Project, version: str) -> int:
    return project.call("sha256sum", "-c", "--quiet", "--strict", f"releases/pair-{version}/SHA256SUMS").returncode


def read_champions(client: MlflowClient) -> dict[str, int]:
    return {model.name: int(model.aliases["champion"]) for model in client.search_registered_models()}


def test_a_release_is_made_refused_accepted_promoted_and_rolled_back(project: Project) -> None:
    done = project.run("+release=pair", "release.version=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "release: pair-1, releases/pair-1/changes.html" in done.stdout
    assert check_sums(project, "1") == 0
    manifest = project.read_json("releases/pair-1/manifest.json")
    (mlp, _) = manifest["models"]
    assert mlp["op_counts"]
    assert mlp["dims"][0]["proven_sizes"][-1] == 1024
    assert mlp["measured"]["export_peak_bytes"] > 0
    assert mlp["parity"]["max_noise_ratio"] is not None
    assert mlp["dvc_hash"].endswith(".dir")
    assert mlp["mlflow_model_id"].startswith("m-")
    assert "exporter.zoo.mlp" in " ".join(mlp["source_sha256"]).replace("/", ".")

    again = project.run("+release=pair")
    assert (again.returncode, "release: nothing new since pair-1" in again.stdout) == (0, True), again.stderr
    promoted = project.python("-m", "registry_sync", "promote", "pair")
    assert promoted.returncode == 0, promoted.stderr

    config = project.path / "conf/model/mlp.yaml"
    config.write_text(config.read_text().replace("max: 1024", "max: 512"))
    refused = project.run("+release=pair", "release.version=2")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "mlp: over budget: dims batch 1 to 1024 -> batch 1 to 512: may not hold for fewer sizes" in refused.stdout
    assert project.python("-m", "registry_sync", "promote", "pair").returncode == 1
    accepted = project.run("+release=pair", "release.version=3", "release.accept=[mlp]")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert set(project.published()) == {"mlp", "two_tower"}
    assert project.python("-m", "registry_sync", "promote", "pair").returncode == 0
    uri = f"sqlite:///{project.path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    assert read_champions(client) == {"mlp": 2, "two_tower": 1}

    assert check_sums(project, "1") == 1
    rolled = project.python("-m", "registry_sync", "rollback", "pair")
    assert rolled.returncode == 0, rolled.stderr
    assert "exports/mlp: as in pair-1" in rolled.stdout
    assert read_champions(client) == {"mlp": 1, "two_tower": 1}
    assert check_sums(project, "1") == 0
    # The bytes are those of dvc.lock, which went back with them; the config still is the newer one.
    status = project.dvc("status", "export@mlp").stdout
    assert "changed deps" in status
    assert "changed outs" not in status
    verified = project.python("-m", "registry_sync", "verify")
    assert verified.returncode == 0, verified.stderr
    assert "releases/pair-3: ok, 1 in exports, 1 in DVC's cache" in verified.stdout
    mlflow.set_tracking_uri(uri)
    folder = mlflow.artifacts.download_artifacts("models:/mlp@champion", dst_path=str(project.path / "back"))
    released = {file["path"]: file["sha256"] for file in mlp["files"]}
    assert hash_file(Path(folder) / "model.onnx") == released["model.onnx"]
    for command in (["list"], ["show", "pair-2"], ["diff", "pair-1", "pair-3"]):
        shown = project.python("-m", "registry_sync", *command)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "mlp" in shown.stdout or command == ["list"]
