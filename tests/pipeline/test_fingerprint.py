import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from exporter.checkpoint import hash_weights
from exporter.files import hash_file
from exporter.spec import ExportOptions, ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.versions import library_versions
from pipeline import fingerprint
from pipeline.fingerprint import explain_change, take_fingerprint
from pipeline.source_code import forget_sources


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a model, its helper and its weights."""
    (tmp_path / "fp_model.py").write_text(
        "import torch\nfrom fp_helper import scale\nclass Net(torch.nn.Module): ...\n"
    )
    (tmp_path / "fp_helper.py").write_text("def scale(x):\n    return 2 * x\n")
    (tmp_path / "fp_unused.py").write_text("")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def make_spec(**model) -> ExportSpec:
    model = {"source": {"_target_": "fp_model.Net"}, "weights": "weights.pt"} | model
    return ExportSpec(
        id="net",
        model=ModelSpec(name="net", inputs={"x": Input(shape=[2])}, **model),
        precision=Precision(PrecisionName.fp32, rtol=0.1, atol=0.1),
    )


def take(spec: ExportSpec | None = None) -> dict[str, str]:
    """As in a process of its own, which has not read any source yet."""
    forget_sources()
    for function in (fingerprint._distribution_version, fingerprint._hash_own_code):
        function.cache_clear()
    return take_fingerprint(spec or make_spec())


def test_the_parts_are_the_spec_the_code_the_versions_and_the_weights(project):
    parts = take()
    assert parts["spec.export.opset_version"] == "20"
    assert parts["spec.model.source._target_"] == '"fp_model.Net"'
    assert parts["spec.model.inputs.x.shape"] == "[2]"
    assert parts["code.fp_model.py"] == hash_file(project / "fp_model.py")
    assert parts["code.fp_helper.py"] == hash_file(project / "fp_helper.py")
    assert "code.fp_unused.py" not in parts
    assert re.fullmatch("[0-9a-f]{64}", parts["code.modelpress"])
    assert parts["version.torch"] == library_versions()["torch"] != ""
    assert parts["weights"] == hash_file(project / "weights.pt")


def test_nothing_changed_has_nothing_to_explain(project):
    assert take() == take()
    assert explain_change(take(), take()) == ""


def test_a_touch_changes_nothing(project):
    before = take()
    for path in project.iterdir():
        os.utime(path, (1, 1))
    assert take() == before


def test_a_copy_of_the_project_has_the_same_parts(project, tmp_path_factory, monkeypatch):
    before = take()
    clone = tmp_path_factory.mktemp("clone") / "project"
    shutil.copytree(project, clone)
    monkeypatch.chdir(clone)
    monkeypatch.syspath_prepend(clone)
    assert take() == before


def test_code_that_lies_outside_the_current_directory_counts_by_where_it_is_imported_from(
    project, tmp_path_factory, monkeypatch
):
    before = take()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(project / "weights.pt", elsewhere)
    monkeypatch.chdir(elsewhere)
    assert take() == before
    assert not [key for key in before if str(project) in key]


def test_two_processes_with_different_hash_seeds_take_the_same(project):
    script = (
        "import json, sys; from exporter.plain_data import from_plain; from exporter.spec import ExportSpec; "
        "from pipeline.fingerprint import take_fingerprint; sys.path.insert(0, ''); "
        "print(json.dumps(take_fingerprint(from_plain(ExportSpec, json.loads(sys.argv[1])))))"
    )
    plain = json.dumps(fingerprint.to_plain(make_spec()))
    printed = {
        subprocess.run(
            [sys.executable, "-c", script, plain],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert json.loads(printed.pop()) == take()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"export": ExportOptions(opset_version=21)}, "opset_version 20 -> 21"),
        ({"export": ExportOptions(optimize="none")}, "optimize default -> none"),
        ({"precision": Precision(PrecisionName.fp32, rtol=0.2, atol=0.1)}, "rtol 0.1 -> 0.2"),
        ({"model": make_spec(seed=3).model}, "seed 0 -> 3"),
        ({"id": "other"}, "id net -> other"),
    ],
)
def test_a_changed_key_is_explained_with_both_values(project, change, reason):
    before = take()
    assert explain_change(before, take(replace(make_spec(), **change))) == reason


def test_an_added_and_a_removed_key_are_explained_by_nothing(project):
    with_size = take(make_spec(source={"_target_": "fp_model.Net", "size": 64}))
    assert explain_change(take(), with_size) == "size nothing -> 64"
    assert explain_change(with_size, take()) == "size 64 -> nothing"


@pytest.mark.parametrize("name", ["fp_model.py", "fp_helper.py"])
def test_changed_source_is_explained_by_its_file(project, name):
    before = take()
    with (project / name).open("a") as file:
        file.write("\n# changed\n")
    assert explain_change(before, take()) == f"code changed: {name}"


def test_changed_source_of_a_nested_target_is_explained_by_its_file(project):
    (project / "fp_config.py").write_text("class Config: ...\n")
    spec = make_spec(source={"_target_": "fp_model.Net", "config": {"_target_": "fp_config.Config"}})
    before = take(spec)
    (project / "fp_config.py").write_text("class Config:\n    size = 3\n")
    assert explain_change(before, take(spec)) == "code changed: fp_config.py"


def test_changed_source_of_a_translation_table_is_explained_by_its_file(project):
    (project / "fp_table.py").write_text("def make_table(): ...\n")
    spec = make_spec()
    spec.export = ExportOptions(custom_translation_table={"_target_": "fp_table.make_table"})
    before = take(spec)
    assert before["code.fp_table.py"] == hash_file(project / "fp_table.py")
    (project / "fp_table.py").write_text("def make_table(): return {}\n")
    assert explain_change(before, take(spec)) == "code changed: fp_table.py"


def test_a_changed_file_that_the_model_does_not_import_changes_nothing(project):
    before = take()
    (project / "fp_unused.py").write_text("changed = True\n")
    assert take() == before


def test_changed_weights_are_explained(project):
    before = take()
    (project / "weights.pt").write_bytes(b"weighty")
    assert explain_change(before, take()) == "weights changed"


def test_another_version_of_a_library_is_explained_with_both(project):
    before = take()
    assert explain_change(before, before | {"version.torch": "9.9"}) == f"torch {before['version.torch']} -> 9.9"


def test_another_modelpress_is_explained():
    assert explain_change({"code.modelpress": "1"}, {"code.modelpress": "2"}) == "code changed: modelpress"


def test_installed_code_counts_by_its_version(project):
    parts = take(make_spec(source={"_target_": "transformers.models.bert.modeling_bert.BertModel"}))
    assert parts["version.transformers"].startswith("5.")
    assert [key for key in parts if key.startswith("code.")] == ["code.modelpress"]


def test_installed_code_counts_by_the_version_of_a_distribution_of_another_name(project):
    parts = take(make_spec(source={"_target_": "yaml.loader.Loader"}))
    assert re.fullmatch(r"\d+(\.\d+)+", parts["version.yaml"])


def test_many_changes_are_counted_and_those_of_the_config_come_first():
    old = {"code.a.py": "1", "version.torch": "1", "weights": "1", "spec.model.seed": "0", "spec.export.opset": "18"}
    new = dict.fromkeys(old, "2")
    assert explain_change(old, new) == "opset 18 -> 2, seed 0 -> 2, code changed: a.py and 2 more"


def test_a_part_of_a_kind_that_is_not_known_is_a_change_like_others():
    assert explain_change({"spec.seed": "0", "planet.name": "Mars"}, {"spec.seed": "1"}) == (
        "seed 0 -> 1, name Mars -> nothing"
    )


def test_a_long_value_is_cut():
    assert explain_change({"spec.a": '"x"'}, {"spec.a": f'"{"y" * 100}"'}) == f"a x -> {'y' * 40}"


def test_each_shard_of_a_checkpoint_counts(project):
    index = project / "w.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "w-1.safetensors", "b": "w-2.safetensors"}}')
    for number in (1, 2):
        (project / f"w-{number}.safetensors").write_bytes(b"shard")
    spec = make_spec(weights=index.name)
    before = take(spec)
    assert before["weights"] == hash_weights(index) != hash_file(index)
    (project / "w-2.safetensors").write_bytes(b"other")
    assert explain_change(before, take(spec)) == "weights changed"
