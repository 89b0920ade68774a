"""A kept registry of ONNX functions makes the files that a new one makes; it is kept only in the torch that we know."""

import faulty_models
import own_operators
import pytest
import torch
from onnxscript import opset20 as op
from onnxscript.function_libs.torch_lib.registration import default_registry, torch_op
from torch.onnx._internal.exporter import _registration

from exporter import ExportDirectory, FailureKind, Input, Status, operator_registry
from exporter.conductor import run_export
from exporter.operator_registry import find_obstacle, kept_registry
from exporter.result import Rung

TABLE = {"_target_": "own_operators.make_table"}


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    monkeypatch.setattr(operator_registry, "_kept", None)
    operator_registry._original_method.cache_clear()
    yield
    operator_registry._original_method.cache_clear()


@pytest.fixture
def builds(monkeypatch):
    """The registries that torch has built, by the class that it was asked of."""
    method = vars(_registration.ONNXRegistry)["from_torchlib"].__func__
    asked = []

    def from_torchlib(cls, opset_version=18):
        asked.append(cls.__name__)
        return method(cls, opset_version)

    monkeypatch.setattr(_registration.ONNXRegistry, "from_torchlib", classmethod(from_torchlib))
    return asked


def export(path, module=None, opset=20, table=None):
    """The sha256 of all files, by name."""
    spec = faulty_models.make_spec()
    spec.export.opset_version, spec.export.custom_translation_table = opset, table
    result = run_export(spec, path, module or faulty_models.Encodes(), threads=1)
    assert (result.status, result.failure) == (Status.passed, None)
    return {file.path: file.sha256 for file in ExportDirectory(path).record_files()}


def test_with_the_installed_torch_the_registry_is_kept():
    # Where this fails, torch is another: see whether what is replaced is as it was, then say so in _KNOWN_TORCH.
    assert find_obstacle() == ""


CASES = [
    (faulty_models.Perceptron, (18, 21)),
    pytest.param(faulty_models.Encodes, (18, 20, 23, 25), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("model", "opsets"), CASES)
def test_kept_or_not_the_files_are_the_same_at_any_opset(tmp_path, monkeypatch, builds, model, opsets):
    torch.manual_seed(0)
    module = model()
    kept = {opset: export(tmp_path / f"kept-{opset}", module, opset) for opset in opsets}
    assert builds == ["WholeRegistry"]
    monkeypatch.setattr(operator_registry, "_KNOWN_TORCH", ["2", "12"])
    assert kept == {opset: export(tmp_path / f"new-{opset}", module, opset) for opset in opsets}
    assert builds == ["WholeRegistry", *["ONNXRegistry"] * len(opsets)]
    assert len({files["model.onnx"] for files in kept.values()}) > 1


def test_a_translation_table_serves_its_own_export_alone(tmp_path, monkeypatch, builds):
    torch.manual_seed(0)
    module = own_operators.Shrinks()
    first, again = (export(tmp_path / name, module, table=TABLE) for name in ("first", "again"))
    failure = run_export(faulty_models.make_spec(), tmp_path / "without", module, threads=1).failure
    assert (failure.kind, failure.ops) == (FailureKind.unsupported_op, ["own_operators.shrink.default"])
    assert builds == ["WholeRegistry"]
    monkeypatch.setattr(operator_registry, "_KNOWN_TORCH", ["2", "12"])
    assert first == again == export(tmp_path / "new", module, table=TABLE)


@pytest.mark.parametrize("version", ["2.14.0", "2.130.1", "3.13.0+cpu"])
def test_another_torch_builds_its_own(tmp_path, monkeypatch, builds, version):
    monkeypatch.setattr(torch, "__version__", version)
    assert find_obstacle() == f"torch {version} is not a 2.13"
    export(tmp_path, faulty_models.Perceptron())
    assert builds == ["ONNXRegistry"]


def rename(registry, monkeypatch):
    monkeypatch.delattr(registry, "from_torchlib")


def take_more(registry, monkeypatch):
    monkeypatch.setattr(registry, "from_torchlib", classmethod(lambda cls, opset_version=18, device=None: None))


def begin_elsewhere(registry, monkeypatch):
    monkeypatch.setattr(registry, "from_torchlib", classmethod(lambda cls, opset_version=20: None))


def make_static(registry, monkeypatch):
    monkeypatch.setattr(registry, "from_torchlib", staticmethod(lambda opset_version=18: None))


def hold_more(registry, monkeypatch):
    monkeypatch.setattr(
        registry, "__init__", lambda self: self.__dict__.update(functions={}, _opset_version=18, more=0)
    )


def choose_otherwise(registry, monkeypatch):
    monkeypatch.delattr(registry, "_cleanup_registry_based_on_opset_version")


@pytest.mark.parametrize("change", [rename, take_more, begin_elsewhere, make_static, hold_more, choose_otherwise])
def test_a_registry_of_another_form_is_left_alone(monkeypatch, change):
    change(_registration.ONNXRegistry, monkeypatch)
    before = dict(vars(_registration.ONNXRegistry))
    assert find_obstacle() != ""
    with kept_registry():
        assert dict(vars(_registration.ONNXRegistry)) == before


def test_torch_has_its_own_method_back_after_a_failure_too(tmp_path, builds):
    before = vars(_registration.ONNXRegistry)["from_torchlib"]
    result = run_export(faulty_models.make_spec(), tmp_path, own_operators.Shrinks(), threads=1)
    assert result.failure.kind is FailureKind.unsupported_op
    assert builds == ["WholeRegistry"]
    assert vars(_registration.ONNXRegistry)["from_torchlib"] is before


def test_a_rung_that_hides_a_function_hides_it_in_its_own_attempt_alone(tmp_path, builds):
    spec = faulty_models.make_spec(inputs={"x": Input(["n", 6, 8])})
    rescued = run_export(spec, tmp_path / "rescued", faulty_models.AttendsOverHeads(), threads=1)
    assert (rescued.failure, rescued.rescued_by) == (None, [Rung.decomposed_attention])
    spec.export.rescue = False
    failed = run_export(spec, tmp_path / "failed", faulty_models.AttendsOverHeads(), threads=1)
    assert failed.failure.kind is FailureKind.translation_error
    assert builds == ["WholeRegistry"]


def multiply_by_three(x):
    return op.Mul(x, 3.0)


def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3


class Triples(torch.nn.Module):
    """Needs an operator that another package has the ONNX function for, and that comes into being late."""

    def forward(self, x):
        return torch.ops.late_operators.triple(x)


def test_an_operator_that_comes_later_is_found(tmp_path, monkeypatch, builds):
    # As torchvision's come when a model imports it: onnxscript has their functions all along.
    with monkeypatch.context() as patch:
        patch.setattr(default_registry, "_registry", dict(default_registry._registry))
        export(tmp_path / "before", faulty_models.Perceptron())
        torch_op("late_operators::triple", trace_only=True)(multiply_by_three)
        export(tmp_path / "function", faulty_models.Perceptron())
        operator = torch.library.custom_op("late_operators::triple", triple, mutates_args=())
        operator.register_fake(torch.empty_like)
        export(tmp_path / "operator", Triples())
        export(tmp_path / "again", Triples())
        assert builds == ["WholeRegistry"] * 3
