"""From a dotted path to a module in eval mode, and what can be wrong with either."""

import random

import faulty_models
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter.build import build_module, check_signature, construct, locate, seed_everything
from exporter.errors import FailureKind, StepError
from exporter.spec import Input


def model_of(source, weights=None, seed=0, inputs=("input",)):
    spec = faulty_models.make_spec(inputs={name: Input(["n", 8]) for name in inputs}, seed=seed)
    spec.model.source = source
    spec.model.weights = None if weights is None else str(weights)
    return spec.model


LINEAR = {"_target_": "torch.nn.Linear", "in_features": 8, "out_features": 2}


def raised(function, *args):
    with pytest.raises(StepError) as caught:
        function(*args)
    return caught.value


def test_a_module_is_built_with_its_arguments_in_eval_mode():
    module = build_module(model_of({"_target_": "faulty_models.DropsOut"}))
    assert type(module) is faulty_models.DropsOut
    assert [part.training for part in module.modules()] == [False, False]
    assert build_module(model_of(LINEAR)).weight.shape == (2, 8)


def test_a_seed_decides_the_weights():
    first, same, other = (build_module(model_of(LINEAR, seed=seed)).weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_every_generator_is_seeded():
    def draw():
        seed_everything(5)
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    assert draw() == draw()


def test_parts_of_a_source_are_built_first():
    linear = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2, "bias": False}
    module = construct({"_target_": "torch.nn.Sequential", "_args_": [linear, {"_target_": "torch.nn.ReLU"}]})
    assert [type(part) for part in module] == [nn.Linear, nn.ReLU]
    assert module[0].bias is None
    assert construct({"_target_": "builtins.dict", "a": [linear], "b": {"c": 1}})["b"] == {"c": 1}


def test_constructing_leaves_the_source_as_it_was():
    source = {"_target_": "torch.nn.Sequential", "_args_": [dict(LINEAR)]}
    construct(source)
    assert source == {"_target_": "torch.nn.Sequential", "_args_": [LINEAR]}


def test_a_target_may_be_nested_in_a_class():
    assert locate("torch.nn.Linear.__init__") is nn.Linear.__init__


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("no_such_package.Model", "no module for _target_ 'no_such_package.Model'"),
        ("Model", "no module for _target_ 'Model'"),
        ("", "no module for _target_ ''"),
        ("torch.nn.Linaer", "'torch.nn.Linaer': no 'Linaer' in torch.nn"),
        ("torch.no_such.Linear", "'torch.no_such.Linear': no 'no_such' in torch"),
        ("faulty_models.NUMBER", "'faulty_models.NUMBER' is a int, which cannot be called"),
        ("torch.nn", "'torch.nn' is a module, which cannot be called"),
        ("faulty_models.NUMBER.lost", "no 'lost' in "),
    ],
)
def test_a_target_that_is_not_there_is_an_import_error(target, cause):
    error = raised(locate, target)
    assert error.kind is FailureKind.import_error
    assert cause in error.cause


def test_a_misspelt_target_is_told_the_right_one():
    assert raised(locate, "torch.nn.Linaer").hint == "did you mean 'Linear'?"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("from math import no_such_name", "cannot import name 'no_such_name'"),
        ("def broken(:", "invalid syntax"),
        ("raise RuntimeError('no licence')", "no licence"),
    ],
)
def test_a_module_that_fails_to_import_is_an_import_error_with_its_reason(tmp_path, monkeypatch, code, cause):
    (tmp_path / "users_own_model.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    error = raised(locate, "users_own_model.Model")
    assert error.kind is FailureKind.import_error
    assert "users_own_model" in error.cause
    assert cause in error.cause


@pytest.mark.parametrize(("target", "found"), [("faulty_models.NotAModule", "NotAModule"), ("builtins.dict", "dict")])
def test_what_is_no_torch_module_is_a_build_error(target, found):
    error = raised(build_module, model_of({"_target_": target}))
    assert error.kind is FailureKind.build_error
    assert error.cause == f"source._target_ {target!r} gives a {found}, not a torch.nn.Module"


@pytest.fixture
def state():
    torch.manual_seed(77)
    return nn.Linear(8, 2).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_loaded_from_their_file(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    module = build_module(model_of(LINEAR, path))
    assert torch.equal(module.weight, state["weight"])
    assert torch.equal(module.bias, state["bias"])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda state: state.pop("bias"), 'Missing key(s) in state_dict: "bias"'),
        (lambda state: state.update(extra=torch.zeros(1)), 'Unexpected key(s) in state_dict: "extra"'),
        (lambda state: state.update(weight=torch.zeros(2, 9)), "size mismatch for weight"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_do_not_fit_are_a_weights_error(tmp_path, state, suffix, change, cause):
    path = tmp_path / f"weights{suffix}"
    change(state)
    save_file(state, path) if suffix == ".safetensors" else torch.save(dict(state), path)
    error = raised(build_module, model_of(LINEAR, path))
    assert error.kind is FailureKind.weights_error
    assert error.cause.startswith(f"{path}: ")
    assert cause in error.cause


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [None, b"", b"no weights" * 100])
def test_a_weights_file_that_is_missing_or_broken_is_a_weights_error(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    error = raised(build_module, model_of(LINEAR, path))
    assert error.kind is FailureKind.weights_error
    assert error.cause.startswith(f"{path}: ")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64])
def test_weights_of_a_dtype_that_the_models_does_not_hold_are_a_weights_error(tmp_path, state, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "other.safetensors")
    error = raised(build_module, model_of(LINEAR, tmp_path / "other.safetensors"))
    assert error.kind is FailureKind.weights_error
    assert f"is {dtype} in the file and torch.float32 in the model" in error.cause


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrower_floats_are_widened_to_the_models(tmp_path, state, dtype):
    narrow = {name: tensor.to(dtype) for name, tensor in state.items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    module = build_module(model_of(LINEAR, tmp_path / "narrow.safetensors"))
    assert module.weight.dtype is torch.float32
    assert torch.equal(module.weight, narrow["weight"].float())


class RunsOnLoad:
    """Unpickled by a plain torch.load, this makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (__import__("os").mkdir, (str(self.path),))


def test_code_in_a_weights_file_is_refused_and_does_not_run(tmp_path):
    torch.save({"weight": RunsOnLoad(tmp_path / "ran")}, tmp_path / "evil.pt")
    error = raised(build_module, model_of(LINEAR, tmp_path / "evil.pt"))
    assert error.kind is FailureKind.weights_error
    assert not (tmp_path / "ran").exists()


def test_tied_weights_stay_tied_when_they_are_loaded(tmp_path):
    torch.save(faulty_models.Ties().state_dict(), tmp_path / "tied.pt")
    module = build_module(model_of({"_target_": "faulty_models.Ties"}, tmp_path / "tied.pt"))
    assert module.second.weight is module.first.weight


TIES = {"_target_": "faulty_models.Ties"}


@pytest.mark.parametrize("name", ["first.weight", "second.weight"])
def test_one_name_of_a_tied_weight_is_enough(tmp_path, name):
    weight = torch.randn(8, 8)
    save_file({name: weight}, tmp_path / "tied.safetensors")
    module = build_module(model_of(TIES, tmp_path / "tied.safetensors"))
    assert module.second.weight is module.first.weight
    assert torch.equal(module.first.weight, weight)


def test_no_name_of_a_tied_weight_is_too_few(tmp_path):
    save_file({"third.weight": torch.ones(8, 8)}, tmp_path / "tied.safetensors")
    error = raised(build_module, model_of(TIES, tmp_path / "tied.safetensors"))
    assert error.kind is FailureKind.weights_error
    assert 'Missing key(s) in state_dict: "first.weight", "second.weight"' in error.cause


def test_two_values_for_one_tied_weight_are_a_weights_error(tmp_path):
    state = {"first.weight": torch.zeros(8, 8), "second.weight": torch.ones(8, 8)}
    save_file(state, tmp_path / "tied.safetensors")
    error = raised(build_module, model_of(TIES, tmp_path / "tied.safetensors"))
    assert error.kind is FailureKind.weights_error
    assert "'first.weight' and 'second.weight' are one tensor in the model, and differ in the file" in error.cause


class Signatures(nn.Module):
    """A forward for each test below."""

    def forward(self, input, mask=None, *, scale=1.0):  # noqa: A002
        return input


def signed(forward):
    return type("Signed", (nn.Module,), {"forward": forward})()


@pytest.mark.parametrize("inputs", [("input",), ("input", "mask"), ("mask", "input"), ("scale", "input")])
def test_arguments_with_a_default_may_be_left_out(inputs):
    check_signature(Signatures(), model_of(LINEAR, inputs=inputs))


@pytest.mark.parametrize(
    ("forward", "inputs", "cause", "hint"),
    [
        (
            Signatures.forward,
            ("imput",),
            "model.inputs.imput: 'imput' is no argument of forward(input, mask, scale)",
            "'input'",
        ),
        (
            Signatures.forward,
            ("input", "zzz"),
            "model.inputs.zzz: 'zzz' is no argument of forward(input, mask, scale)",
            "",
        ),
        (Signatures.forward, ("mask",), "forward needs 'input', which is not among the inputs", "constants"),
        (lambda self, a, *, b: a, ("a",), "forward needs 'b', which is not among the inputs", "constants"),
        (lambda self, a, **more: a, ("b",), "forward needs 'a', which is not among the inputs", "constants"),
        (lambda self: 1, ("a",), "model.inputs.a: 'a' is no argument of forward()", ""),
        (lambda self, *tensors: tensors, ("tensors",), "forward takes *tensors", ""),
        (lambda self, a, b=1, /, c=2: a, ("b",), "forward needs 'a'", "constants"),
    ],
)
def test_inputs_that_are_not_forwards_arguments_are_a_signature_mismatch(forward, inputs, cause, hint):
    error = raised(check_signature, signed(forward), model_of(LINEAR, inputs=inputs))
    assert error.kind is FailureKind.signature_mismatch
    assert error.cause.startswith(cause)
    assert hint in error.hint
