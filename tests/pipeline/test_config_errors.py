from dataclasses import dataclass, field

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import CONF_DIR, Config, register
from pipeline.config_errors import explain_hydra_error, explain_omegaconf_error


@dataclass
class Leaf:
    width: int = 1
    height: int = 1


@dataclass
class Tree:
    leaf: Leaf = field(default_factory=Leaf)
    by_name: dict[str, Leaf] = field(default_factory=dict)
    maybe: Leaf | None = None


def explain_override(*overrides: str) -> str:
    register()
    with pytest.raises(HydraException) as caught, initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        compose("config", overrides=list(overrides))
    return explain_hydra_error(caught.value, Config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+model=mlp", "export.opest_version=18"],
            "export.opest_version: unknown key; did you mean export.opset_version?",
        ),
        (["+model=mlp", "exprot.opset_version=18"], "exprot: unknown key; did you mean export?"),
        (
            ["+model=mlp", "model.inputs.tensor_x.dtpe=int8"],
            "model.inputs.tensor_x.dtpe: unknown key; did you mean model.inputs.tensor_x.dtype?",
        ),
        (["model=mlp"], "model=NAME: write +model=NAME, with a plus; no model is chosen by default"),
        (
            ["+model=mlp", "tracking=of"],
            "tracking: there is no 'of'; did you mean 'off'? There are: local, off, server",
        ),
        (
            ["+model=mlp", "precision=int99"],
            (
                "precision: there is no 'int99'; did you mean 'int8_weights'? There are: bf16, fp16, fp32, "
                "int8_dynamic, int8_weights"
            ),
        ),
    ],
)
def test_what_hydra_cannot_compose_is_explained_by_key_value_and_nearest_name(overrides, message):
    assert explain_override(*overrides) == message


def test_a_misspelt_model_is_explained_with_the_nearest_and_all_there_are():
    message = explain_override("+model=mpl")
    listed = ", ".join(sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml")))
    assert message == f"model: there is no 'mpl'; did you mean 'mlp'? There are: {listed}"


def test_a_missing_primary_config_is_explained_in_one_line():
    register()
    with pytest.raises(HydraException) as caught, initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        compose("confg")
    message = explain_hydra_error(caught.value, Config)
    assert message.startswith("Cannot find primary config 'confg'")
    assert "\n" not in message


@pytest.mark.parametrize("override", ["model.seed=[", "model.seed={a:1", "model"])
def test_an_override_that_does_not_parse_is_named(override):
    message = explain_override("+model=mlp", override)
    assert override in message
    assert len(message.splitlines()) <= 4


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("leef", "leef: unknown key; did you mean leaf?"),
        ("leaf.widht", "leaf.widht: unknown key; did you mean leaf.width?"),
        ("leaf.q", "leaf.q: unknown key; under leaf there are: width, height"),
        ("by_name.oak.heigth", "by_name.oak.heigth: unknown key; did you mean by_name.oak.height?"),
        ("maybe.widht", "maybe.widht: unknown key; did you mean maybe.width?"),
        ("q", "q: unknown key; there are: leaf, by_name, maybe"),
    ],
)
def test_an_unknown_key_is_explained_at_any_depth(key, message):
    config = OmegaConf.create({})
    OmegaConf.update(config, key, 1, force_add=True)
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.merge(OmegaConf.structured(Tree), config)
    assert explain_omegaconf_error(caught.value, Tree) == message


def test_a_missing_value_is_explained_without_a_traceback_of_words():
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.to_container(OmegaConf.create({"a": {"b": "???"}}), throw_on_missing=True)
    assert explain_omegaconf_error(caught.value, Tree) == "a.b: is missing; it has no default"


def test_an_error_without_a_key_keeps_its_first_line():
    assert explain_omegaconf_error(OmegaConfBaseException("first\nsecond"), Tree) == "first"
    assert explain_omegaconf_error(OmegaConfBaseException(), Tree) == "OmegaConfBaseException"
