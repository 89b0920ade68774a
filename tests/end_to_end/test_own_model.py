"""A user's own folder: their module, their config, both commands; and a batch in which some models are broken."""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from project import Project

MODELS = """
import ctypes, os, time
import torch
from torch import nn

class Good(nn.Module):
    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(4, hidden)
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(features))

class Branch(Good):
    def forward(self, features):
        return self.linear(features) if features.shape[0] > 2 else features

class Segfault(Good):
    def forward(self, features):
        ctypes.string_at(0)

class Exits(Good):
    def forward(self, features):
        os._exit(0)

class Killed(Good):
    def forward(self, features):
        os.kill(os.getpid(), 9)

class Hangs(Good):
    def forward(self, features):
        while True:
            time.sleep(0.01)

class Broken(Good):
    def __init__(self) -> None:
        raise ValueError("no such size")
"""


def write_model(project: Project, name: str, target: str, **source: object) -> None:
    directory = project.path / "my_conf" / "model"
    directory.mkdir(parents=True, exist_ok=True)
    arguments = "".join(f", {key}: {value}" for key, value in source.items())
    (directory / f"{name}.yaml").write_text(
        f"name: {name}\n"
        f"source: {{_target_: my_models.{target}{arguments}}}\n"
        "dims:\n  batch: {min: 1, max: 16, example: 4}\n"
        "inputs:\n  features: {shape: [batch, 4]}\n"
    )


def test_the_console_script_exports_a_module_of_the_users_folder(folder: Project) -> None:
    (folder.path / "my_models.py").write_text(MODELS)
    write_model(folder, "my_model", "Good", hidden=8)
    command = str(Path(sys.executable).with_name("modelpress"))
    done = folder.call(command, "--config-dir", "my_conf", "+model=my_model")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "DVC: not a DVC repository; exports are not versioned" in done.stdout
    assert folder.published() == {"my_model"}
    changed = (folder.path / "my_models.py").read_text().replace("torch.relu", "torch.tanh")
    (folder.path / "my_models.py").write_text(changed)
    again = folder.run("--config-dir", "my_conf", "+model=my_model", "tracking=off")
    assert again.returncode == 0, again.stderr
    assert "(code changed: my_models.py)" in again.stdout


def test_what_onnx_runtime_cannot_run_is_unproven_and_not_published(folder: Project) -> None:
    done = folder.run("+model=mlp", "precision=bf16")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[1/1] unproven mlp-bf16 parity: parity_unsupported: " in " ".join(done.stdout.split())
    assert folder.published() == set()
    assert folder.outcomes() == {"mlp-bf16": "unproven"}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One batch with every way to go wrong, and two healthy models in it."""
    project = Project(tmp_path_factory.mktemp("broken"))
    (project.path / "my_models.py").write_text(MODELS)
    names = ("Good", "Branch", "Segfault", "Exits", "Killed", "Hangs", "Broken")
    for name in names:
        write_model(project, name.lower(), name)
    models = ",".join(name.lower() for name in names)
    done = project.run("--config-dir", "my_conf", "-m", f"+model={models},mlp", "executor.timeout_s=12")
    (project.path / ".stderr").write_text(done.stderr)
    (project.path / ".rc").write_text(str(done.returncode))
    return project


def test_the_batch_completes_and_says_that_exports_failed(broken: Project) -> None:
    assert (broken.path / ".rc").read_text() == "1"
    assert len((broken.path / ".stderr").read_text().splitlines()) <= 15
    assert "Traceback" not in (broken.path / ".stderr").read_text()


def test_only_what_passed_is_published(broken: Project) -> None:
    assert broken.published() == {"good", "mlp"}


@pytest.mark.parametrize(
    ("model", "step", "kind", "cause"),
    [
        ("branch", "parity", "baked_branch", "the graph holds for batch from 3 to any only"),
        ("segfault", "capture", "crashed", "the worker died of SIGSEGV"),
        ("killed", "capture", "killed", "the worker died of SIGKILL"),
        ("exits", "capture", "exited_early", "exit status 0 and no result"),
        ("hangs", "capture", "timeout", "no result after 12 s"),
        ("broken", "build", "build_error", "ValueError: no such size"),
    ],
)
def test_a_broken_model_is_reported_by_step_kind_and_cause(
    broken: Project, model: str, step: str, kind: str, cause: str
) -> None:
    export = next(export for export in broken.last_summary()["exports"] if export["id"] == model)
    assert export["outcome"] == "failed"
    failure = export["failure"]
    assert (failure["step"], failure["kind"]) == (step, kind)
    assert cause in failure["cause"]
    directory = broken.path / export["directory"]
    assert {"result.json", "report.html", "report.md", "worker.log", "spec.json"} <= {
        path.name for path in directory.iterdir()
    }


def test_a_failed_export_is_a_failed_run_in_mlflow(broken: Project) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{broken.path}/mlflow.db")
    experiment = client.get_experiment_by_name("modelpress").experiment_id
    runs = {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment])}
    assert runs["good"].info.status == "FINISHED"
    assert runs["segfault"].info.status == "FAILED"
    assert runs["segfault"].data.tags["modelpress.failure.kind"] == "crashed"
    assert "worker.log" in {item.path for item in client.list_artifacts(runs["segfault"].info.run_id)}


def test_a_failed_export_leaves_the_last_good_one_in_place(broken: Project) -> None:
    before = (broken.path / "exports/good/model.onnx").read_bytes()
    source = broken.path / "my_models.py"
    text = source.read_text()
    source.write_text(text.replace("return torch.relu(self.linear(features))", "return features + torch.ones(4, 4)"))
    done = broken.run("--config-dir", "my_conf", "+model=good", "tracking=off")
    source.write_text(text)
    assert done.returncode == 1
    assert "capture: dim_specialized" in done.stderr
    assert (broken.path / "exports/good/model.onnx").read_bytes() == before
    failed = max(broken.runs(), key=lambda path: path.stat().st_mtime_ns) / "exports/good"
    assert "static shape" in (failed / "torch_onnx_report.md").read_text()
