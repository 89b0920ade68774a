import time
from pathlib import Path

import pytest

from exporter import cuda
from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, FailureKind, StorageError
from exporter.files import write_json
from exporter.result import Failure, Step
from exporter.spec import Device, ExportOptions, ExportSpec, Fill, FillKind, Input, ModelSpec, Precision, PrecisionName
from pipeline.config import Config, ExecutorOptions
from pipeline.fingerprint import take_fingerprint
from pipeline.plan import Job, PlannedExport, Planner


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with one module of models; what was looked up before is forgotten."""
    (tmp_path / "pl_models.py").write_text(
        "class Net:\n    def forward(self, pixels, mask=None): ...\n"
        "class Open:\n    def forward(self, **inputs): ...\n"
        "def build_net(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def make_spec(
    export_id: str = "net", target: str = "pl_models.Net", inputs: tuple[str, ...] = ("pixels",), opset: int = 20
) -> ExportSpec:
    return ExportSpec(
        id=export_id,
        model=ModelSpec(name="net", source={"_target_": target}, inputs={name: Input(shape=[1]) for name in inputs}),
        precision=Precision(PrecisionName.fp32, rtol=0.1, atol=0.1),
        export=ExportOptions(opset_version=opset),
    )


def publish_export(
    spec: ExportSpec, failure: Failure | None = None, weights: bytes = b"some weights"
) -> ExportDirectory:
    """What a run of that spec would have left under exports/."""
    directory = ExportDirectory(Path("exports") / spec.id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(b"a graph")
    directory.model_data.write_bytes(weights)
    write_json(directory.spec, spec)
    write_json(directory.fingerprint, take_fingerprint(spec))
    write_result(directory, describe_result(spec, failure, time.time(), files=directory.record_files()))
    return directory


def plan(*specs: ExportSpec, **settings) -> list[PlannedExport]:
    """The plan, made as from the jobs of one sweep."""
    config = Config(model=specs[0].model, precision=specs[0].precision, **settings)
    planner = Planner(config)
    for spec in specs:
        planner.add(Job(spec, config))
    return planner.finish()


def plan_one(spec: ExportSpec, **settings) -> PlannedExport:
    (planned,) = plan(spec, **settings)
    return planned


def complaint(*specs: ExportSpec) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*specs)
    assert caught.value.exit_code is ExitCode.CONFIG
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        ("pl_models.Net", ("pixels",)),
        ("pl_models.Net", ("mask", "pixels")),
        ("pl_models.Open", ("anything",)),
        ("pl_models.build_net", ("anything",)),
        ("transformers.models.bert.modeling_bert.BertModel", ("input_ids", "attention_mask")),
    ],
)
def test_a_sound_spec_has_no_complaint(target, inputs):
    assert len(plan(make_spec(target=target, inputs=inputs), make_spec("other", target=target, inputs=inputs))) == 2


def test_a_missing_gpu_is_told_once_whatever_the_number_of_models(monkeypatch):
    monkeypatch.setattr(cuda, "_find_torch", lambda: Path("nowhere"))
    specs = [make_spec(name) for name in ("one", "two", "three")]
    assert len(plan(*specs)) == 3
    for spec in specs[1:]:
        spec.export.device = Device.cuda
    assert complaint(*specs) == "export.device: cuda, but there is no torch"


@pytest.mark.parametrize(("one", "other"), [("net", "net"), ("net", "Net"), ("straße", "STRASSE")])
def test_two_exports_of_one_name_are_refused_by_their_folded_name(one, other):
    expected = f"id: two exports are named {other!r}; sweep a value only once, or set id=NAME for one of them"
    assert complaint(make_spec(one), make_spec("third"), make_spec(other)) == expected


def test_an_input_that_forward_does_not_take_is_refused_with_the_nearest():
    assert complaint(make_spec(inputs=("pixels", "maks"))) == (
        "net: model.inputs.maks: forward(pixels, mask) of pl_models.Net takes no 'maks'; did you mean 'mask'?"
    )


def test_an_input_that_is_near_to_nothing_is_refused_without_a_guess():
    assert complaint(make_spec(inputs=("pixels", "qqq"))) == (
        "net: model.inputs.qqq: forward(pixels, mask) of pl_models.Net takes no 'qqq'"
    )


def test_an_argument_without_default_that_is_no_input_is_refused():
    assert complaint(make_spec(inputs=("mask",))) == (
        "net: model.inputs: forward of pl_models.Net needs 'pixels', which is not declared"
    )


def test_a_misspelt_class_is_refused_with_the_nearest_and_the_file(project):
    assert complaint(make_spec(target="pl_models.Nett")) == (
        f"net: model.source._target_: there is no 'Nett' in pl_models ({project / 'pl_models.py'}); "
        "did you mean pl_models.Net?"
    )


def test_a_missing_module_is_refused():
    assert complaint(make_spec(target="pl_modles.Net")) == (
        "net: model.source._target_: there is no module 'pl_modles' for 'pl_modles.Net', "
        "neither installed nor in this folder"
    )


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("pl_tabel.make_table", "there is no module 'pl_tabel' for 'pl_tabel.make_table', neither installed nor in"),
        ("pl_models.make_nets", "there is no 'make_nets' in pl_models"),
    ],
)
def test_a_translation_table_that_is_not_there_is_refused(target, problem):
    spec = make_spec()
    spec.export.custom_translation_table = {"_target_": target}
    assert complaint(spec).startswith(f"net: export.custom_translation_table._target_: {problem}")
    spec.export.custom_translation_table = {"_target_": "pl_models.build_net"}
    assert plan_one(spec).reason == "new"


def test_a_checkpoint_whose_shards_are_missing_or_elsewhere_is_refused(project):
    spec = make_spec()
    spec.model.weights = "w.safetensors.index.json"
    (project / "w.safetensors.index.json").write_text('{"weight_map": {"a": "w-1.safetensors"}}')
    assert complaint(spec) == (
        "net: model.weights: w.safetensors.index.json: there is no shard 'w-1.safetensors' beside it"
    )
    (project / "w-1.safetensors").write_bytes(b"")
    assert plan_one(spec).reason == "new"
    (project / "w.safetensors.index.json").write_text('{"weight_map": {"a": "../w-1.safetensors"}}')
    assert "shard '../w-1.safetensors' must be a .safetensors file in the index's own directory" in complaint(spec)


def test_all_problems_are_told_at_once_and_each_once():
    specs = [make_spec("a", inputs=("pixel",)), make_spec("b", target="pl_nowhere.Net"), make_spec("a")]
    specs.append(make_spec("c", target="pl_nowhere.Net"))
    lines = complaint(*specs).splitlines()
    assert [line.split(":")[0:2] for line in lines] == [
        ["net", " model.inputs.pixel"],
        ["net", " model.inputs"],
        ["net", " model.source._target_"],
        ["id", " two exports are named 'a'; sweep a value only once, or set id=NAME for one of them"],
    ]


def test_an_export_that_was_never_published_is_new():
    planned = plan_one(make_spec())
    assert (planned.reason, planned.published) == ("new", None)
    assert planned.fingerprint == take_fingerprint(make_spec())


def test_a_published_export_that_is_what_it_would_become_is_up_to_date():
    directory = publish_export(make_spec())
    planned = plan_one(make_spec())
    assert planned.reason == ""
    assert planned.published == directory.read_result()


def test_force_is_a_reason_only_where_something_is_published():
    assert plan_one(make_spec(), force=True).reason == "new"
    publish_export(make_spec())
    planned = plan_one(make_spec(), force=True)
    assert (planned.reason, planned.published) == ("force=true", None)


def test_another_fingerprint_is_the_reason_in_words():
    publish_export(make_spec())
    planned = plan_one(make_spec(opset=21))
    assert (planned.reason, planned.published) == ("opset_version 20 -> 21", None)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_one_flipped_byte_of_a_published_file_is_a_reason_that_names_it(name):
    path = publish_export(make_spec()).path / name
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    planned = plan_one(make_spec())
    assert (planned.reason, planned.published) == (f"published bytes changed: {name}", None)


def test_lost_files_are_a_reason_that_names_all_of_them():
    directory = publish_export(make_spec())
    directory.model.unlink()
    directory.model_data.unlink()
    assert plan_one(make_spec()).reason == "published bytes changed: model.onnx, model.onnx.data"


def test_a_published_export_that_failed_is_made_again():
    publish_export(make_spec(), Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="c", hint="h"))
    assert plan_one(make_spec()).reason == "the published export did not pass"


@pytest.mark.parametrize("name", ["result.json", "fingerprint.json"])
@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"\xff", b'{"schema_version": 0}', b'{"a": 1}', "folder"])
def test_a_record_that_cannot_be_read_is_a_reason(name, damage):
    path = publish_export(make_spec()).path / name
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage is not None:
        path.write_bytes(damage)
    planned = plan_one(make_spec())
    expected = "missing" if damage in (None, "folder") else "broken"
    assert (planned.reason, planned.published) == (f"{name} is {expected}", None)


def test_each_spec_is_planned_by_itself_in_the_order_given():
    publish_export(make_spec("b"))
    planned = plan(*[make_spec(name) for name in "abc"])
    assert [(plan.spec.id, plan.reason) for plan in planned] == [("a", "new"), ("b", ""), ("c", "new")]


def test_settings_that_no_run_can_have_are_refused_before_any_job_is_taken():
    spec = make_spec()
    with pytest.raises(ConfigError, match=r"^executor\.workers: 0 must be at least 1$"):
        Planner(Config(model=spec.model, precision=spec.precision, executor=ExecutorOptions(workers=0)))


def test_that_there_is_work_is_known_as_soon_as_the_job_is_there():
    publish_export(make_spec("same"))
    publish_export(make_spec("changed"))
    spec = make_spec()
    config = Config(model=spec.model, precision=spec.precision)
    planner = Planner(config)
    specs = [make_spec("same"), make_spec("fresh"), make_spec("changed", opset=21), make_spec("wrong", inputs=())]
    assert [planner.add(Job(item, config)) for item in specs] == [False, True, True, False]


def test_a_damaged_file_is_found_when_all_jobs_are_there():
    directory = publish_export(make_spec())
    directory.model.write_bytes(b"a grapf")
    spec = make_spec()
    config = Config(model=spec.model, precision=spec.precision)
    planner = Planner(config)
    assert not planner.add(Job(spec, config))
    assert [plan.reason for plan in planner.finish()] == ["published bytes changed: model.onnx"]


def test_a_checkpoint_and_a_published_file_are_read_once_whatever_the_number_of_exports(project, monkeypatch):
    opened: list[str] = []
    real_open = Path.open

    def count(self, mode="r", *args, **kwargs):
        if mode == "rb" and kwargs.get("buffering") == 0:
            opened.append(self.name)
        return real_open(self, mode, *args, **kwargs)

    # More than is hashed at once, so that threads do it.
    (project / "w.safetensors").write_bytes(bytes(3 << 20))
    specs = [make_spec(name) for name in "abc"]
    for spec in specs:
        spec.model.weights = "w.safetensors"
        publish_export(spec)
    monkeypatch.setattr(Path, "open", count)
    assert [item.reason for item in plan(*specs)] == ["", "", ""]
    assert sorted(opened) == sorted(["w.safetensors", "pl_models.py"] + ["model.onnx", "model.onnx.data"] * 3)


def test_an_export_that_another_run_publishes_meanwhile_is_looked_at_again(project):
    spec = make_spec()
    directory = publish_export(spec)
    config = Config(model=spec.model, precision=spec.precision)
    planner = Planner(config)
    planner.add(Job(spec, config))
    # The whole directory is another now, in one step.
    directory.path.rename(project / "before")
    publish_export(spec, weights=b"others")
    (planned,) = planner.finish()
    assert planned.reason == ""
    assert planned.published == directory.read_result()


def test_a_file_on_a_broken_disk_is_no_mistake_of_the_config():
    spec = make_spec()
    # Linux gives no byte of a process's memory at address 0: EIO.
    spec.model.inputs["pixels"] = Input(shape=[1], fill=Fill(kind=FillKind.file, path="/proc/self/mem"))
    with pytest.raises(StorageError) as caught:
        plan(spec, make_spec("other"))
    assert str(caught.value).startswith("net: cannot read what it is made of: [Errno 5] Input/output error")
    assert "check the disk" in str(caught.value)
