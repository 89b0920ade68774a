"""Inputs and outputs declared once for many layers."""

import pytest

from exporter import ConfigError, Input, ModelSpec, Output, expand_repeats


def model_of(name, item):
    return ModelSpec(name="m", source={}, inputs={"x": Input(shape=[1]), name: item})


def test_a_repeated_input_is_numbered_in_its_name_and_its_argument():
    item = Input(shape=["n"], argument="past[{i}](0)", repeat=2)
    expanded = expand_repeats(model_of("key_{i}", item))
    assert list(expanded.inputs) == ["x", "key_0", "key_1"]
    assert [expanded.inputs[f"key_{i}"].argument for i in range(2)] == ["past[0](0)", "past[1](0)"]
    assert [one.repeat for one in expanded.inputs.values()] == [None] * 3
    assert item.repeat == 2, "the declared one is as it was"


def test_a_repeated_output_is_numbered():
    model = ModelSpec(name="m", source={}, inputs={}, outputs={"key_{i}": Output(shape=["n"], repeat=3)})
    assert list(expand_repeats(model).outputs) == ["key_0", "key_1", "key_2"]


@pytest.mark.parametrize(
    ("name", "item", "words"),
    [
        ("key", Input(shape=[1], argument="a[{i}]", repeat=2), "model.inputs.key: 'key' is repeated and needs {i}"),
        ("key_{i}", Input(shape=[1], argument="a", repeat=2), "argument: 'a' is repeated and needs {i}"),
        ("key_{i}", Input(shape=[1], repeat=0), "repeat: 0 must be at least 1"),
    ],
)
def test_a_repeat_without_a_number_is_refused(name, item, words):
    with pytest.raises(ConfigError) as raised:
        expand_repeats(model_of(name, item))
    assert words in str(raised.value)


def test_a_repeat_that_comes_to_a_name_that_is_taken_is_refused():
    item = Input(shape=[1], argument="a[{i}]", repeat=2)
    for first, second in (
        ({"key_1": Input(shape=[1])}, {"key_{i}": item}),
        ({"key_{i}": item}, {"key_1": Input(shape=[1])}),
    ):
        with pytest.raises(ConfigError, match="key_1"):
            expand_repeats(ModelSpec(name="m", source={}, inputs={**first, **second}))
