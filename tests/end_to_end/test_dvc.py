"""DVC from end to end: a release, a variant and a user's own model, in a repository with a remote, and in its clone."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from project import Project, copy_project
from safetensors.numpy import save_file

pytestmark = pytest.mark.slow

MODELS = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(features))
"""
CONFIG = """
name: mine
source: {_target_: my_models.Mine}
weights: mine.safetensors
dims: {batch: {min: 1, max: 16, example: 4}}
inputs:
  features: {shape: [batch, 4]}
"""
RELEASE = ["mlp", "two_tower", "mine"]
VARIANT = "mlp-opset18"


def write_weights(project: Project, value: float) -> None:
    weights = {"linear.weight": np.full((4, 4), value, np.float32), "linear.bias": np.zeros(4, np.float32)}
    save_file(weights, project.path / "mine.safetensors")


def commit_as_told(project: Project, stdout: str) -> None:
    """Paste the line that the batch ends with."""
    (line,) = [line.removeprefix("git:") for line in stdout.splitlines() if line.startswith("git:")]
    assert line.strip() == stdout.strip().splitlines()[-1].removeprefix("git:").strip()
    done = project.call("sh", "-c", line)
    assert done.returncode == 0, done.stderr


def status(project: Project) -> str:
    return project.call("git", "status", "--porcelain").stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which a model of one's own was added to the zoo, released, a variant exported, all committed."""
    project = copy_project(tmp_path_factory.mktemp("dvc"))
    project.git("config", "user.name", "t")
    project.git("config", "user.email", "t@example.org")
    release = project.path / "conf/release/zoo.yaml"
    config = yaml.safe_load(release.read_text())
    config["release"]["models"] = RELEASE
    release.write_text("# @package _global_\n" + yaml.safe_dump(config))
    (project.path / "my_models.py").write_text(MODELS)
    (project.path / "conf/model/mine.yaml").write_text(CONFIG)
    write_weights(project, 0.5)
    project.git("add", "-A")
    project.git("commit", "-qm", "mine")
    done = project.run("+release=zoo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 exports committed" in done.stdout
    assert (
        "dvc repro does not see changes of mine.safetensors, my_models.py; add to the deps of export@mine"
        in done.stdout
    )
    commit_as_told(project, done.stdout)
    # As it says. It is a dependency of all stages then; what is up to date is not exported for it.
    stages = project.path / "dvc.yaml"
    watched = "      - exporter\n      - my_models.py\n      - mine.safetensors\n"
    stages.write_text(stages.read_text().replace("      - exporter\n", watched))
    done = project.run("-m", "+model=mlp", "export.opset_version=18")
    assert done.returncode == 0, done.stderr
    commit_as_told(project, done.stdout)
    done = project.run("+release=zoo")
    assert "3 of 3 exports committed" in done.stdout
    assert "does not see" not in done.stdout
    commit_as_told(project, done.stdout)
    project.git("commit", "-qam", "watch my model")
    return project


def test_everything_is_committed(project: Project) -> None:
    assert status(project) == ""
    assert "up to date" in project.dvc("status").stdout
    listed = project.dvc("ls", ".", "exports", "--dvc-only").stdout.split()
    assert sorted(listed) == sorted([*RELEASE, VARIANT])
    again = project.run("+release=zoo")
    assert "git:" not in again.stdout
    assert "DVC" not in again.stdout


@pytest.mark.parametrize("change", ["weights", "source", "config"])
def test_dvc_repro_exports_what_changed_and_only_that(project: Project, change: str) -> None:
    before = {name: (project.path / f"exports/{name}/result.json").read_bytes() for name in RELEASE}
    if change == "weights":
        write_weights(project, 0.75)
    else:
        name, old, new = {
            "source": ("my_models.py", "torch.relu", "torch.tanh"),
            "config": ("conf/model/mine.yaml", "max: 16", "max: 8"),
        }[change]
        path = project.path / name
        path.write_text(path.read_text().replace(old, new))
    done = project.dvc("repro")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {name: (project.path / f"exports/{name}/result.json").read_bytes() for name in RELEASE}
    assert [name for name in RELEASE if after[name] != before[name]] == ["mine"]
    assert "up to date" in project.dvc("status").stdout
    # DVC's own lock is newer than what we remember of it; nothing is exported.
    done = project.run("+release=zoo")
    assert set(project.outcomes().values()) == {"up_to_date"}
    assert "up to date" in project.dvc("status").stdout
    commit_as_told(project, done.stdout)


def test_metrics_and_plots_show_the_difference_by_model(project: Project) -> None:
    project.call("git", "tag", "before")
    source = project.path / "my_models.py"
    source.write_text(source.read_text().replace("torch.tanh(", "torch.sigmoid("))
    done = project.run("+release=zoo", "tracking.mlflow=false", "release.accept=[mine]")
    assert done.returncode == 0, done.stdout + done.stderr
    difference = json.loads(project.dvc("metrics", "diff", "--json", "before").stdout)
    assert difference.keys() == {"metrics/mine.json"}
    # What is the same by chance is left out.
    assert {"duration_s", "latency_s"} <= difference["metrics/mine.json"].keys()
    plots = project.dvc("plots", "diff", "before", "--json")
    data = json.loads(plots.stdout)["data"]
    fields = {"max_abs_diff", "max_noise_ratio", "export_peak_bytes", "size_bytes", "latency_s"}
    shown = {plot["content"]["encoding"]["x"]["field"] for (plot,) in data.values()}
    assert shown == fields
    for (plot,) in data.values():
        values = plot["content"]["data"]["values"]
        assert {(row["rev"], row["export"]) for row in values} == {
            (rev, name) for rev in ("workspace", "before") for name in [*RELEASE, VARIANT]
        }
        assert fields <= values[0].keys()
        assert "<DVC_" not in json.dumps(plot["content"])
    commit_as_told(project, done.stdout)


def test_a_clone_pulls_what_was_pushed_and_runs_it(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    assert project.dvc("remote", "add", "-f", "-d", "shelf", str(remote)).returncode == 0
    project.git("commit", "-qam", "remote")
    pushed = project.python("-m", "registry_sync", "push")
    assert pushed.returncode == 0, pushed.stderr
    assert "4 exports as recorded" in pushed.stdout
    for pull in (("-m", "dvc", "pull"), ("-m", "registry_sync", "pull")):
        clone = Project(tmp_path / pull[1])
        project.git("clone", "-q", ".", str(clone.path))
        done = clone.python(*pull)
        assert done.returncode == 0, done.stderr
        verified = clone.python("-m", "registry_sync", "verify").stdout.splitlines()
        assert len([line for line in verified if line.startswith("exports/") and line.endswith(": ok")]) == 4
        assert "up to date" in clone.dvc("status").stdout
        assert status(clone) == ""
        model = clone.path / "exports/mine/model.onnx"
        onnx.load(model)
        features = np.ones((3, 4), np.float32)
        (output,) = onnxruntime.InferenceSession(model).run(None, {"features": features})
        assert output.shape == (3, 4)
        # Up to date there too: nothing is exported, and nothing has to be committed again.
        again = clone.run("+release=zoo", "tracking.mlflow=false")
        assert set(clone.outcomes().values()) == {"up_to_date"}, again.stdout
        assert "git:" not in again.stdout
        assert status(clone) == ""


def test_with_dvc_off_neither_a_stage_nor_a_variant_is_committed(project: Project) -> None:
    config = project.path / "conf/model/mlp.yaml"
    config.write_text(config.read_text().replace("max: 1024", "max: 512"))
    before = (project.path / "dvc.lock").read_bytes()
    done = project.run("-m", "+model=mlp", "export.opset_version=20,19", "tracking.dvc=false", "tracking.mlflow=false")
    assert done.returncode == 0, done.stderr
    assert "DVC" not in done.stdout
    assert "git:" not in done.stdout
    assert (project.path / "dvc.lock").read_bytes() == before
    assert not list(project.path.glob("exports/*opset19*.dvc"))
    assert project.python("-m", "registry_sync", "sync").stdout == "nothing to sync\n"
    assert (project.path / "dvc.lock").read_bytes() == before
