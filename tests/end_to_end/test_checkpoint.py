"""transformers' checkpoints, as `save_pretrained` writes them, in one file and in shards, from config to verdict."""

from pathlib import Path

import pytest
import torch
import yaml
from project import REPOSITORY, Project, copy_project

from exporter.build import construct
from exporter.checkpoint import find_files, hash_weights

# A tied head that the checkpoint leaves out; position ids, and rotary frequencies, that it does not hold.
MODELS = ("gpt2", "bert", "llama")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the repository with both forms of each model's checkpoint, and a batch that exported all of them."""
    project = copy_project(tmp_path_factory.mktemp("checkpoints"))
    for name in MODELS:
        config = yaml.safe_load((REPOSITORY / "conf" / "model" / f"{name}.yaml").read_text())
        torch.manual_seed(77)
        model = construct(config["source"])
        model.save_pretrained(project.path / "whole" / name)
        model.save_pretrained(project.path / "shards" / name, max_shard_size="60KB")
    done = project.run(
        "-m",
        "+model=gpt2,bert,llama",
        "model.weights=whole/${model.name}/model.safetensors,shards/${model.name}/model.safetensors.index.json",
        "tracking=off",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def results(project: Project) -> dict[tuple[str, str], dict]:
    """By model and by `whole` or `shards`."""
    found = [project.read_json(f"exports/{name}/result.json") for name in project.published()]
    return {(r["spec"]["model"]["name"], Path(r["spec"]["model"]["weights"]).parts[0]): r for r in found}


def test_both_forms_of_each_are_streamed_and_pass_with_the_same_bytes(exported: Project) -> None:
    found = results(exported)
    assert sorted(found) == [(name, form) for name in sorted(MODELS) for form in ("shards", "whole")]
    for name in MODELS:
        whole, shards = found[name, "whole"], found[name, "shards"]
        for result in (whole, shards):
            assert (result["status"], result["weights"]) == ("passed", {"mode": "streamed", "reason": ""})
        # model.onnx names the fingerprint, which tells the two configs apart.
        assert [file["path"] for file in whole["files"]] == ["model.onnx", "model.onnx.data"]
        assert whole["files"][1] == shards["files"][1]
        assert len(find_files(exported.path / shards["spec"]["model"]["weights"])) > 2


def test_a_changed_shard_is_exported_again_and_a_wrong_hash_is_refused(exported: Project) -> None:
    index = exported.path / "shards" / "gpt2" / "model.safetensors.index.json"
    declared = hash_weights(index)
    command = ("+model=gpt2", f"model.weights={index}", f"model.weights_sha256={declared}", "id=again", "tracking=off")
    assert exported.run(*command).returncode == 0
    assert "up to date" in exported.run(*command).stdout
    shard = find_files(index)[-1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = exported.run(*command)
    assert done.returncode == 1
    assert f"its sha256 is {hash_weights(index)}; model.weights_sha256 says {declared}" in done.stdout + done.stderr
