from enum import StrEnum
from operator import attrgetter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from exporter import spec as spec_module
from exporter.errors import ConfigError, ExitCode
from exporter.spec import DType, ExportSpec, FillKind
from exporter.validation import find_problems
from pipeline import config as config_module
from pipeline.cli import run
from pipeline.config import CONF_DIR, Config, compose_spec, read_config, register
from pipeline.config_errors import explain_hydra_error

MODELS = sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml"))

MINIMAL = {
    "model": {"name": "tiny", "source": {"_target_": "my.Tiny"}, "inputs": {"x": {"shape": [1]}}},
    "precision": {"name": "fp32", "rtol": 0.1, "atol": 0.1},
}


def compose_config(*overrides: str) -> Config:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return read_config(compose("config", overrides=list(overrides)))


def explain(*overrides: str) -> str:
    """What a person is told, whether Hydra or the schema refuses."""
    with pytest.raises((ConfigError, HydraException)) as caught:
        compose_job(*overrides)
    return str(caught.value) if isinstance(caught.value, ConfigError) else explain_hydra_error(caught.value, Config)


def compose_job(*overrides: str) -> ExportSpec:
    return compose_spec(compose_config(*overrides), overrides)


def test_the_shipped_configs_lie_beside_the_package():
    assert Path(__file__).parents[2] / "conf" == CONF_DIR
    assert len(MODELS) >= 15


@pytest.mark.parametrize("model", MODELS)
def test_every_shipped_model_composes_to_a_valid_spec_of_its_name(model):
    spec = compose_job(f"+model={model}")
    assert (spec.id, spec.model.name) == (model, model)
    assert list(find_problems(spec)) == []


def test_the_zoo_release_lists_every_shipped_model_once():
    models = OmegaConf.load(CONF_DIR / "release" / "zoo.yaml").release.models
    assert sorted(models) == MODELS


def test_values_from_files_and_the_command_line_are_typed():
    spec = compose_job("+model=bert", "export.opset_version=18", "export.optimize=none", "model.dims.batch.max=16")
    assert spec.export.opset_version == 18
    assert spec.export.optimize == "none"
    assert spec.model.dims["batch"].max == 16
    assert spec.model.inputs["input_ids"].dtype is DType.int64
    assert spec.model.inputs["input_ids"].fill.kind is FillKind.randint
    assert spec.model.inputs["input_ids"].fill.high == 1000.0
    assert (spec.precision.rtol, spec.precision.atol) == (1e-4, 1e-5)


def test_a_translation_table_is_set_by_its_target_and_arguments():
    assert compose_job("+model=mlp").export.custom_translation_table is None
    spec = compose_job("+model=mlp", "export.custom_translation_table={_target_: my_ops.make_table, size: 3}")
    assert spec.export.custom_translation_table == {"_target_": "my_ops.make_table", "size": 3}
    assert "the key _target_ is missing" in explain("+model=mlp", "export.custom_translation_table={size: 3}")


def test_the_order_of_inputs_is_that_of_the_file():
    assert list(compose_job("+model=clip").model.inputs) == ["input_ids", "pixel_values", "attention_mask"]


def test_tracking_off_turns_both_trackers_off():
    tracking = compose_config("+model=mlp", "tracking=off").tracking
    assert (tracking.mlflow, tracking.dvc) == (False, False)


def test_overrides_name_the_export():
    assert compose_job("+model=mlp", "model.seed=3", "executor.workers=1").id == "mlp-seed_3"


def test_an_id_from_the_config_is_taken_as_it_is():
    assert compose_job("+model=mlp", "model.seed=3", "id=mine").id == "mine"


def test_interpolations_are_resolved():
    assert compose_job("+model=mlp", "model.seed=${export.opset_version}").model.seed == 20


def test_a_config_needs_no_more_than_what_has_no_default():
    config = read_config(OmegaConf.create(MINIMAL))
    assert (config.executor.workers, config.executor.timeout_s) == (None, 1800.0)
    assert config.output.exports == "exports"
    assert config.release is None
    assert compose_spec(config, []).id == "tiny"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+export.opest=18"], "export.opest: unknown key; did you mean export.opset_version?"),
        (["+model.sede=1"], "model.sede: unknown key; did you mean model.seed?"),
        (
            ["+model.inputs.tensor_x.fill.knd=ones"],
            "model.inputs.tensor_x.fill.knd: unknown key; did you mean model.inputs.tensor_x.fill.kind?",
        ),
        (
            ["+model.outputs.output.nofinite=true"],
            "model.outputs.output.nofinite: unknown key; did you mean model.outputs.output.nonfinite?",
        ),
        (
            ["+bogus=18"],
            (
                "bogus: unknown key; there are: id, model, precision, export, parity, executor, tracking, output, "
                "release, force, explain, status"
            ),
        ),
        (
            ["+output.gpus=1"],
            "output.gpus: unknown key; under output there are: exports, runs, metrics",
        ),
        (["export.opset_version=${nope.x}"], "export.opset_version: Interpolation key 'nope.x' not found"),
        (["model.name=${nosuch:1}"], "model.name: Unsupported interpolation type nosuch"),
        (
            ["model.inputs.tensor_x.shape=[batsh,8]", "model.dims.batch.min=2"],
            (
                "mlp: model.inputs.tensor_x.shape: dim 'batsh' is not declared; did you mean 'batch'?\n"
                "mlp: model.dims.batch: no input's shape has this dim"
            ),
        ),
        (
            ["export.opest_version=18"],
            "export.opest_version: unknown key; did you mean export.opset_version?",
        ),
        (
            ["export.opset_version=high"],
            "export.opset_version: Value 'high' of type 'str' could not be converted to Integer",
        ),
        (["executor.timeout_s=soon"], "executor.timeout_s: Value 'soon' of type 'str' could not be converted to Float"),
        (["model.seed=1.5"], "model.seed: Value '1.5' of type 'float' could not be converted to Integer"),
        (["model.inputs=[]"], "model.inputs: Cannot merge DictConfig with ListConfig"),
        (["force=maybe"], "force: Value 'maybe' is not a valid bool (type str)"),
        (
            ["+model.dims.time={min:1,max:2}"],
            "model.dims.time.example: is missing; it has no default",
        ),
        (["export.opset_version=29"], "mlp: export.opset_version: 29 is not within 1 to 28"),
        (
            ["id=a/b"],
            "mlp: id: 'a/b' must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused_with_its_key_and_what_is_right(overrides, message):
    assert explain("+model=mlp", *overrides) == message


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("MODELPRESS_TEST_NAME", raising=False)
    with pytest.raises(ConfigError, match=r"^model\.name: .*'MODELPRESS_TEST_NAME' not found"):
        compose_config("+model=mlp", "model.name=${oc.env:MODELPRESS_TEST_NAME}")


def test_no_model_is_said_with_how_to_choose_one():
    with pytest.raises(ConfigError) as caught:
        compose_config()
    assert str(caught.value).startswith("no model: say which with +model=NAME")
    assert str(caught.value).endswith("for example +model=mlp")


@pytest.mark.parametrize(
    ("section", "key"),
    [("model", "inputs"), ("model", "name")],
)
def test_a_missing_key_is_named(section, key):
    data = {name: dict(value) for name, value in MINIMAL.items()}
    del data[section][key]
    with pytest.raises(ConfigError) as caught:
        read_config(OmegaConf.create(data))
    assert str(caught.value) == f"{section}.{key}: is missing; it has no default"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model.seed", "three", "model.seed: Value 'three' of type 'str' could not be converted to Integer"),
        ("model.seed", None, "model.seed: Incompatible value 'None' for field of type 'int'"),
        ("precision.rtol", "small", "precision.rtol: Value 'small' of type 'str' could not be converted to Float"),
        (
            "precision.name",
            "fp61",
            ("precision.name: Invalid value 'fp61', expected one of [fp32, fp16, bf16, int8_dynamic, int8_weights]"),
        ),
        ("force", "maybe", "force: Value 'maybe' is not a valid bool (type str)"),
        (
            "model.inputs.x.dtype",
            "float31",
            (
                "model.inputs.x.dtype: Invalid value 'float31', expected one of [float32, float64, float16, bfloat16, "
                "float8_e4m3fn, float8_e5m2, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, "
                "uint64, bool]"
            ),
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_key(place, value, message):
    config = OmegaConf.create(MINIMAL)
    OmegaConf.update(config, place, value, force_add=True)
    with pytest.raises(ConfigError) as caught:
        read_config(config)
    assert str(caught.value) == message


def test_a_value_in_place_of_a_section_is_refused_with_what_belongs_there():
    told = explain("+model=mlp", "export=3")
    assert told.startswith("export: 3 is a single value; set one of its keys: export.opset_version, export.")


def test_a_config_that_is_a_list_is_refused():
    with pytest.raises(ConfigError, match="the config is a list, not a mapping"):
        read_config(OmegaConf.create([1]))


def test_the_sweep_resolver_makes_a_sweep_of_a_list():
    register()
    assert OmegaConf.create({"names": ["a", "b"], "sweep": "${sweep:${names}}"}).sweep == "a,b"


# What Hydra itself stumbles over has to end as an error of the user's, too, not as a bug of ours.
@pytest.mark.parametrize("override", ["+model.source._target_=my.Tiny", "+release.name=mine"])
def test_keys_of_a_section_that_nobody_chose_are_a_config_error(override, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    # Where a bug report would go.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = run(["modelpress", override, "tracking=off"])
    captured = capfd.readouterr()
    assert "bug in modelpress" not in captured.err
    assert code is ExitCode.CONFIG


def test_a_config_file_that_is_no_yaml_is_a_config_error_that_names_the_file(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "broken.yaml").write_text("name: [broken\n")
    code = run(["modelpress", "--config-dir", "conf", "+model=broken", "tracking=off"])
    captured = capfd.readouterr()
    assert "bug in modelpress" not in captured.err
    assert code is ExitCode.CONFIG
    assert "broken.yaml" in captured.err


def test_a_list_of_passes_comes_from_the_command_line_as_one():
    spec = compose_job("+model=mlp", "export.optimize=[fold_constants,cse]")
    assert spec.export.optimize == ["fold_constants", "cse"]
    assert spec.id == "mlp-optimize_fold_constants.cse"


def test_a_misspelt_pass_is_told_with_the_right_one():
    told = explain("+model=mlp", "export.optimize=[fold_constants,cze]")
    assert told.startswith("mlp: export.optimize: there is no pass 'cze'; did you mean 'cse'? ")


def test_a_model_without_a_source_is_refused_with_exit_code_2():
    data = {**MINIMAL, "model": {name: value for name, value in MINIMAL["model"].items() if name != "source"}}
    with pytest.raises(ConfigError, match=r"model\.source: the key _target_ is missing") as caught:
        compose_spec(read_config(OmegaConf.create(data)), [])
    assert caught.value.exit_code == 2


def test_the_gates_of_fp32_stand_in_the_schema_alone():
    spec = compose_spec(compose_config("+model=mlp"), [])
    assert (spec.precision.rtol, spec.precision.atol) == (1e-4, 1e-5)


def plain_config(*overrides: str) -> dict:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)


EXACT = [[f"+model={model}"] for model in MODELS] + [
    ["+model=mlp", "precision=fp16", "tracking=off", "id=a"],
    ["+model=mlp", "+release=zoo", "executor.workers=2", "executor.timeout_s=10"],
    ["+model=mlp", "executor=ray", "executor.address=somewhere"],
    ["+model=bert", "export.optimize=[cse,inline]", "++model.constants={return_dict: false, scale: 1.5}"],
]


@pytest.mark.parametrize("overrides", EXACT, ids=" ".join)
def test_a_config_of_the_right_types_is_read_as_omegaconf_would_read_it(overrides):
    plain = plain_config(*overrides)
    assert config_module._read_exactly(plain) == config_module._read_leniently(plain)


def put(plain: dict, dotted: str, value: object) -> None:
    *sections, name = dotted.split(".")
    for section in sections:
        plain = plain[section]
    plain[name] = value


# Each of these means something else to OmegaConf than to a plain reading of the data.
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.seed", "3", 3),
        ("model.weights", 7, "7"),
        ("precision.rtol", "1e-3", 1e-3),
        ("force", "yes", True),
        ("precision.name", "PrecisionName.fp16", "fp16"),
    ],
)
def test_a_value_that_omegaconf_converts_is_left_to_it(key, value, expected):
    plain = plain_config("+model=mlp")
    put(plain, key, value)
    assert config_module._read_exactly(plain) is None
    config = read_config(OmegaConf.create(plain))
    assert attrgetter(key)(config) == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.name", "???", "model.name: is missing"),
        ("model.source._target_", "???", "model.source._target_: is missing"),
        ("model.dims", {1: {"min": 1, "max": 2, "example": 1}}, "Key 1"),
        ("model.nme", "x", "model.nme: unknown key"),
        ("precision", None, "precision: None is a single value"),
    ],
)
def test_what_a_plain_reading_would_let_pass_is_left_to_omegaconf(key, value, message):
    plain = plain_config("+model=mlp")
    put(plain, key, value)
    assert config_module._read_exactly(plain) is None
    with pytest.raises(ConfigError, match=message):
        read_config(OmegaConf.create(plain))


def test_what_reads_like_an_interpolation_is_left_to_omegaconf():
    assert config_module._read_exactly(plain_config("+model=mlp") | {"id": "${model.name}"}) is None


def test_the_members_of_every_enum_are_named_as_their_values():
    # OmegaConf goes by the name, JSON and the plain reading by the value.
    known = [*vars(spec_module).values(), *vars(config_module).values()]
    enums = [item for item in known if isinstance(item, type) and issubclass(item, StrEnum)]
    assert len(enums) > 4
    assert [member for item in enums if item is not StrEnum for member in item if member.name != member.value] == []
