import re

import pytest

from pipeline.naming import name_export


def test_a_model_without_overrides_has_its_own_name():
    assert name_export("mlp", ["+model=mlp"]) == "mlp"


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("export.opset_version=18", "mlp-opset18"),
        ("precision=fp16", "mlp-fp16"),
        ("model.seed=3", "mlp-seed_3"),
        ("++model.seed=3", "mlp-seed_3"),
        ("export.optimize=none", "mlp-optimize_none"),
        ("export.optimize=[cse]", "mlp-optimize_cse"),
        ("export.optimize=[fold_constants,cse]", "mlp-optimize_fold_constants.cse"),
        ("export.optimize=[fold_constants, cse]", "mlp-optimize_fold_constants.cse"),
        ("precision.rtol=1e-3", "mlp-rtol_1e-3"),
        ("parity.max_input_elements=10", "mlp-max_input_elements_10"),
        ("+model.source.hidden_size=64", "mlp-source.hidden_size_64"),
    ],
)
def test_an_override_of_what_decides_the_result_is_part_of_the_name(override, name):
    assert name_export("mlp", ["+model=mlp", override]) == name


@pytest.mark.parametrize(
    "override",
    [
        "model=mlp",
        "+model=mlp",
        "+release=zoo",
        "executor=local",
        "executor.workers=2",
        "executor.timeout_s=5",
        "tracking=off",
        "tracking.uri=http://127.0.0.1:5000",
        "output.exports=elsewhere",
        "hydra.job.name=x",
        "hydra/launcher=basic",
        "force=true",
        "id=mine",
    ],
)
def test_a_setting_of_the_run_is_no_part_of_the_name(override):
    assert name_export("mlp", [override]) == "mlp"


def test_a_key_that_only_begins_like_a_setting_of_the_run_is_part_of_the_name():
    assert name_export("mlp", ["forced=1"]) == "mlp-forced_1"


def test_the_order_of_the_overrides_does_not_matter():
    overrides = ["+model=mlp", "export.opset_version=18", "model.seed=3", "precision=fp16"]
    names = {name_export("mlp", overrides), name_export("mlp", overrides[::-1])}
    assert names == {"mlp-opset18-seed_3-fp16"}


@pytest.mark.parametrize(
    ("override", "stem"),
    [
        ("model.name='a b'", "name"),
        ("model.weights=../w.pt", "weights"),
        ("model.weights=/abs/w.pt", "weights"),
        ("+model.source.config={a:1}", "source.config"),
        ("+model.source.sizes=[1,2]", "source.sizes"),
        ("+model.source.text=ü", "source.text"),
        (f"+model.source.text={'x' * 60}", "source.text"),
        ("export.opset_version='18'", "opset_version"),
    ],
)
def test_a_value_that_fits_no_directory_name_is_hashed(override, stem):
    name = name_export("mlp", [override])
    assert re.fullmatch(rf"mlp-{re.escape(stem)}_[0-9a-f]{{8}}", name)
    assert name == name_export("mlp", [override])
    assert name != name_export("mlp", [f"{override[:-1]}9"])


def test_a_long_name_is_cut_to_100_characters_and_stays_its_own():
    names = {
        name_export("mlp", [f"+model.source.argument_{i:02}={'v' * 15}" for i in range(10)] + [f"model.seed={seed}"])
        for seed in range(5)
    }
    assert {len(name) for name in names} == {100}
    assert len(names) == 5


def test_the_longest_name_that_fits_is_kept_whole():
    assert name_export("m" * 100, []) == "m" * 100
    assert name_export("m" * 101, []).startswith("m" * 91 + "-")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.dims.batch.min=2", "model.dims.seq.min=2"),
        ("+model.source.text_config.hidden_size=64", "+model.source.vision_config.hidden_size=64"),
        ("~model.weights", "model.weights=''"),
        ("model.seed=3", "model.seed=4"),
        ("precision.rtol=0.1", "precision.atol=0.1"),
    ],
)
def test_different_overrides_give_different_names(one, other):
    assert name_export("clip", [one]) != name_export("clip", [other])
