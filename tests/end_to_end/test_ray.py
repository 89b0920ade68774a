"""`executor=ray` as a user has it: clusters that are not there, not fit, too small, or lose a node; data far away."""

import hashlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from project import REPOSITORY, Project, stop
from ray_cluster import RayCluster, RayNode, why_no_namespaces

try:
    metadata.version("ray")
except metadata.PackageNotFoundError:
    pytest.skip("Ray is not installed: pip install -e '.[ray]'", allow_module_level=True)

pytestmark = pytest.mark.slow

GIB = 1 << 30
WAIT_S = 120
CONFIG = """
name: {name}
source: {source}
inputs: {{x: {{shape: [2, 3]}}}}
"""
OWN_MODELS = """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 900_000)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)
"""
MAKE_WEIGHTS = """
import torch
from safetensors.torch import save_file
torch.manual_seed(0)
save_file({"linear.weight": torch.randn(900_000, 3), "linear.bias": torch.randn(900_000)}, "own.safetensors")
"""


def configure(folder: Project, name: str, source: str, more: str = "") -> None:
    """A config of the folder's own; the code of waiting_models lies beside it."""
    (folder.path / "conf/model").mkdir(parents=True, exist_ok=True)
    (folder.path / f"conf/model/{name}.yaml").write_text(CONFIG.format(name=name, source=source) + more)
    shutil.copy(REPOSITORY / "tests/support/waiting_models.py", folder.path)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def find_retry(folder: Project) -> dict[str, str]:
    """The one export that the last run tried again, and why."""
    lines = (folder.runs()[-1] / "events.jsonl").read_text().splitlines()
    (retry,) = (event for event in map(json.loads, lines) if event["event"] == "export_retried")
    return retry


def find_marked(mark: str) -> list[psutil.Process]:
    """Processes that were started with a variable of the test's own, wherever they hang by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def find_traces() -> set[Path]:
    return set(Path("/tmp").glob("modelpress-ray-*"))


def test_a_cluster_of_this_run_makes_the_bytes_that_this_machine_makes_and_leaves_nothing(folder, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    before = find_traces()
    done = folder.run("-m", "+model=mlp,gru", "executor=ray", "tracking=off", HOME=str(home), TEST_MARK=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "ray" not in done.stdout.lower()
    ours = {name: hashlib.sha256((folder.path / f"exports/{name}/model.onnx").read_bytes()) for name in ("mlp", "gru")}
    again = folder.run("-m", "+model=mlp,gru", "force=true", "tracking=off")
    assert again.returncode == 0
    for name, digest in ours.items():
        bytes_here = (folder.path / f"exports/{name}/model.onnx").read_bytes()
        assert digest.digest() == hashlib.sha256(bytes_here).digest()
    assert list(home.iterdir()) == []
    assert find_traces() <= before
    assert find_marked(str(tmp_path)) == []


def test_nothing_is_started_where_nothing_is_due(folder):
    assert folder.run("+model=mlp", "tracking=off").returncode == 0
    # An address at which nobody is.
    done = folder.run("+model=mlp", "tracking=off", "executor=ray", "executor.address=127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert folder.outcomes() == {"mlp": "up_to_date"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["executor=ray", "executor.address=127.0.0.1:1"], 5, "executor.address: nobody answers at 127.0.0.1:1: "),
        (["executor=ray", "executor.address='ray://127.0.0.1:1'"], 5, "nobody answers at ray://127.0.0.1:1: "),
        (["executor=ray", "executor.address=here"], 2, "executor.address: 'here' is no address; write auto, HOST:PORT"),
        (["executor=ray", "executor.address=auto"], 5, "executor.address: auto: "),
        (["executor.address=auto"], 2, "executor.address: is for executor=ray alone"),
    ],
)
def test_a_cluster_that_is_not_there_is_a_line_and_nothing_is_started(folder, arguments, code, words):
    done = folder.run("+model=mlp", "tracking=off", *arguments, RAY_TMPDIR=str(folder.path))
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder.path / "runs").exists()


def test_a_stopped_batch_ends_its_cluster_and_what_models_started(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_MARK", str(tmp_path))
    configure(folder, "waits", f"{{_target_: waiting_models.WaitsOnce, flag: {tmp_path}/flag}}")
    process = folder.start("--config-dir", "conf", "+model=waits", "tracking=off", "executor=ray")
    wait_for((tmp_path / "flag").exists, process)
    begin = time.monotonic()
    code, _, err = stop(process, signal.SIGINT)
    assert (code, err) == (130, "")
    assert time.monotonic() - begin < 15
    assert folder.outcomes() == {"waits": "cancelled"}
    assert find_marked(str(tmp_path)) == []


def test_a_killed_batch_takes_its_cluster_and_its_workers_with_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_MARK", str(tmp_path))
    configure(folder, "waits", f"{{_target_: waiting_models.WaitsOnce, flag: {tmp_path}/flag}}")
    process = folder.start("--config-dir", "conf", "+model=waits", "tracking=off", "executor=ray")
    wait_for((tmp_path / "flag").exists, process)
    process.kill()
    process.communicate(timeout=WAIT_S)
    wait_for(lambda: not find_marked(str(tmp_path)))


def test_a_lost_connection_costs_a_second_try(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_MARK", str(tmp_path))
    configure(folder, "waits", f"{{_target_: waiting_models.WaitsOnce, flag: {tmp_path}/flag}}")
    process = folder.start("--config-dir", "conf", "+model=waits", "tracking=off", "executor=ray")
    wait_for((tmp_path / "flag").exists, process)
    gateway = next(other for other in find_marked(str(tmp_path)) if "pipeline.on_ray.gateway" in other.cmdline())
    gateway.kill()
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, ""), out
    assert "the connection to Ray broke" in find_retry(folder)["cause"]
    assert find_marked(str(tmp_path)) == []


def test_a_worker_that_ray_kills_for_its_memory_is_tried_once_more_alone(folder, tmp_path):
    memory = psutil.virtual_memory()
    configure(folder, "hungry", f"{{_target_: waiting_models.TakesMemoryOnce, flag: {tmp_path}/flag}}")
    done = folder.run(
        *("--config-dir", "conf", "+model=hungry", "tracking=off", "executor=ray"),
        RAY_memory_usage_threshold=str((memory.total - memory.available + 2.5 * GIB) / memory.total),
        RAY_memory_monitor_refresh_ms="100",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the worker was killed for its memory: OutOfMemoryError" in find_retry(folder)["cause"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head, and a node with less memory than is expected of any export that was never made."""
    cluster = RayCluster()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.secrets.items():
            patch.setenv(name, value)
        try:
            cluster.add_node(memory_bytes=GIB)
            yield cluster
        finally:
            cluster.close()


@pytest.fixture
def node(cluster) -> Iterator[Callable[..., RayNode]]:
    """Adds nodes, which go with the test."""
    added: list[RayNode] = []

    def add(**options: object) -> RayNode:
        added.append(cluster.add_node(**options))
        return added[-1]

    yield add
    for one in added:
        one.kill()


def on(cluster: RayCluster, way: str = "address") -> list[str]:
    return ["tracking=off", "executor=ray", f"executor.address='{getattr(cluster, way)}'"]


def test_what_no_node_can_ever_hold_is_an_error_at_once(folder, cluster):
    done = folder.run("+model=mlp", *on(cluster))
    assert done.returncode == 2
    assert "modelpress: mlp needs 2 cores and 1,536 MiB of memory\n" in done.stderr
    assert "no node of the Ray cluster can ever hold that" in done.stderr
    assert "has 2 cores and 1,024 MiB of memory" in done.stderr
    assert not (folder.path / "runs").exists()


def test_a_gpu_that_no_node_has_is_an_error_at_once(folder, cluster):
    done = folder.run("+model=mlp", "export.device=cuda", "executor.memory_budget=512MiB", *on(cluster))
    assert done.returncode == 2
    assert "and 1 GPU\n" in done.stderr


def test_with_a_budget_what_is_expected_to_be_too_large_gets_a_whole_node(folder, cluster):
    done = folder.run("+model=mlp", "executor.memory_budget=512MiB", *on(cluster))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Over ray:// it may be the node of the actor, too, that reads the exports' streams.
@pytest.mark.parametrize(("way", "words"), [("address", "NodeDiedError"), ("client_address", "")])
def test_a_node_that_goes_costs_a_second_try_on_another(folder, cluster, node, tmp_path, way, words):
    configure(folder, "waits", f"{{_target_: waiting_models.WaitsOnce, flag: {tmp_path}/flag}}")
    nodes = [node(), node()]
    process = folder.start("--config-dir", "conf", "+model=waits", *on(cluster, way))
    wait_for((tmp_path / "flag").exists, process)
    worker = psutil.Process(int((tmp_path / "flag").read_text()))
    ancestors = {parent.pid for parent in worker.parents()}
    next(one for one in nodes if one.process.pid in ancestors).kill()
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, ""), out
    assert f"the worker was lost: {words}" in find_retry(folder)["cause"]
    assert folder.outcomes() == {"waits": "passed"}
    assert not worker.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_cluster_that_goes_on_without_a_batch_does_not_go_on_with_its_exports(
    folder, cluster, node, tmp_path, number
):
    configure(folder, "waits", f"{{_target_: waiting_models.WaitsOnce, flag: {tmp_path}/flag}}")
    node()
    process = folder.start("--config-dir", "conf", "+model=waits", *on(cluster))
    wait_for((tmp_path / "flag").exists, process)
    worker = psutil.Process(int((tmp_path / "flag").read_text()))
    stop(process, number)
    wait_for(lambda: not worker.is_running())
    assert all(one.process.poll() is None for one in cluster.nodes[:2])


def test_a_node_with_other_code_is_refused_by_its_name(folder, cluster, node, tmp_path, monkeypatch):
    other = tmp_path / "other"
    for name in ("exporter", "pipeline", "registry_sync", "hydra_plugins", "conf"):
        shutil.copytree(REPOSITORY / name, other / name)
    with (other / "exporter/save.py").open("a") as file:
        file.write("# changed\n")
    node(PYTHONPATH=str(other))
    done = folder.run("+model=mlp", *on(cluster))
    assert done.returncode == 5
    assert "cannot run exports: it has modelpress's code " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder.path / "runs").exists()


@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "folders can be hidden")
@pytest.mark.parametrize("way", ["address", "client_address"])
def test_code_and_weights_of_a_folder_reach_a_node_that_does_not_see_it(folder, cluster, node, tmp_path, way):
    (folder.path / "own_models.py").write_text(OWN_MODELS)
    assert folder.python("-c", MAKE_WEIGHTS).returncode == 0
    configure(folder, "own", "{_target_: own_models.Linear}", "weights: own.safetensors\n")
    configure(folder, "absolute", "{_target_: own_models.Linear}", f"weights: {folder.path}/own.safetensors\n")
    node(hidden=[tmp_path])
    done = folder.run("--config-dir", "conf", "-m", "+model=own,absolute", *on(cluster, way))
    assert done.returncode == 1, done.stdout + done.stderr
    assert folder.outcomes() == {"own": "passed", "absolute": "failed"}
    assert f"weights_error: {folder.path}/own.safetensors" in done.stdout
    assert "only files within the working directory, by a relative path, are sent to nodes" in done.stdout
    assert folder.published() == {"own"}
    # Too large to go along as a part of the project, as its weights are.
    assert (folder.path / "exports/own/model.onnx.data").stat().st_size > 10_000_000
    assert (folder.path / "exports/own/worker.log").stat().st_size > 0
    assert not [path for path in (folder.path / "exports/own").iterdir() if path.name.startswith(".")]
