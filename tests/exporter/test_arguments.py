"""Flat inputs to nested arguments of forward, by position where they must be."""

import inspect

import pytest

from exporter.arguments import ArgumentError, Arguments, Call, find_roots, nest
from exporter.spec import Input, ModelSpec


def model_of(constants=None, **arguments):
    inputs = {name: Input(shape=[1], argument=path) for name, path in arguments.items()}
    return ModelSpec(name="m", source={}, inputs=inputs, constants=constants or {})


def call_of(forward, model):
    return Arguments(model, inspect.signature(forward).parameters).arrange({name: name for name in model.inputs})


def test_an_input_without_a_path_is_the_argument_of_its_name():
    assert nest(model_of(x=None, y=None), {"x": 1, "y": 2}) == {"x": 1, "y": 2}


def test_paths_make_lists_tuples_and_dicts_as_deep_as_they_go():
    model = model_of(k="past[0](0)", v="past[0](1)", left="images.left", right="images.right")
    nested = nest(model, {"k": 1, "v": 2, "left": 3, "right": 4})
    assert nested == {"past": [(1, 2)], "images": {"left": 3, "right": 4}}


def test_constants_stand_beside_inputs_and_may_be_none():
    model = model_of({"scale": 2.0, "pair(1)": None}, x="pair(0)")
    assert nest(model, {"x": 1}) == {"pair": (1, None), "scale": 2.0}
    assert nest(model, {"x": 1}, with_constants=False) == {"pair": (1, None), "scale": None}


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({"a": "x[1]"}, r"x\[0\] is missing"),
        ({"a": "x[0]", "b": "x[2]"}, r"x\[1\] is missing"),
        ({"a": "x[0]", "b": "x[0]"}, "two values for one place"),
        ({"a": "x", "b": "x"}, "two values for one place"),
        ({"a": "x[0]", "b": "x(1)"}, "another kind"),
        ({"a": "x", "b": "x[0]"}, "another kind"),
        ({"a": "x[0"}, "none of .key"),
        ({"a": "[0]"}, "does not begin with"),
        ({"a": "x[-1]"}, "none of .key"),
    ],
)
def test_paths_that_contradict_each_other_are_named(paths, words):
    model = model_of(**paths)
    with pytest.raises(ArgumentError, match=words):
        nest(model, dict.fromkeys(model.inputs))


def test_arguments_go_by_name():
    assert call_of(lambda x, y: 0, model_of(y=None, x=None)) == Call((), {"y": "y", "x": "x"})


def test_arguments_by_position_only_go_by_position_in_forwards_order():
    assert call_of(lambda a, b, /, c: 0, model_of(c=None, b=None, a=None)) == Call(("a", "b"), {"c": "c"})


def test_starred_arguments_are_a_tuple_and_take_those_before_them_along():
    model = model_of(second="rest(1)", first="rest(0)", a=None, k=None)
    assert call_of(lambda a, *rest, k: 0, model) == Call(("a", "first", "second"), {"k": "k"})


def test_a_tensor_for_all_starred_arguments_is_refused():
    with pytest.raises(ArgumentError, match=r"rest\(0\)"):
        call_of(lambda *rest: 0, model_of(rest=None))


def test_roots_name_the_key_that_gives_them():
    model = model_of({"scale": 1}, k="past[0](0)")
    assert find_roots(model) == {"past": "model.inputs.k", "scale": "model.constants.scale"}
