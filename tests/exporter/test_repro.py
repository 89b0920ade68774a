"""The bundle of a failed export, and its script, run in a process that cannot import modelpress."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import faulty_models
import plain_models
import pytest
import torch

from exporter import DType, ExportDirectory, ExportResult, FailureKind, Fill, FillKind, Input
from exporter.build import build_module
from exporter.cases import Case
from exporter.conductor import describe_result, run_export
from exporter.inputs import make_inputs
from exporter.repro import render_script, write_bundle
from exporter.result import Failure, Step

# Whether or not modelpress is installed here.
WITHOUT_MODELPRESS = """
import runpy, sys
sys.modules.update(dict.fromkeys(("exporter", "pipeline", "registry_sync")))
runpy.run_path(sys.argv[1], run_name="__main__")
"""

NESTED = {
    "_target_": "plain_models.WrapsAndBranches",
    "layer": {"_target_": "torch.nn.Linear", "_args_": [8, 16], "bias": False},
    "sizes": {"from": 16, "to": 3},
    "scale": 2.5,
}


def fail(target: str, path: Path, **spec) -> tuple[ExportResult, Path]:
    made = faulty_models.make_spec(target, **spec)
    result = run_export(made, path, threads=1)
    assert result.failure is not None
    return result, ExportDirectory(path).repro / "repro.py"


def run(script: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(plain_models.__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELPRESS, str(script)],
        cwd=script.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_parity_failure_is_reproduced_to_the_digit(tmp_path):
    spec = faulty_models.make_spec()
    spec.model.source = NESTED
    result = run_export(spec, tmp_path, threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    done = run(ExportDirectory(tmp_path).repro / "repro.py")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "the failure is reproduced")
    [missed] = [case.outputs[0] for case in result.cases if not case.passed]
    expected = f"max_abs_diff {missed.max_abs_diff:.3g}, {missed.num_mismatched} of {missed.num_elements} elements"
    assert expected in done.stdout


@pytest.mark.slow
def test_once_the_model_is_mended_the_script_ends_well(tmp_path):
    spec = faulty_models.make_spec()
    spec.model.source = NESTED
    result = describe_result(
        spec, Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="was wrong once", hint=""), 0.0
    )
    # At the example's sizes it has no fault.
    (tmp_path / "repro.py").write_text(render_script(result))
    done = run(tmp_path / "repro.py")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the failure is not reproduced"), done.stderr


def test_a_capture_failure_is_reproduced(tmp_path):
    result, script = fail("plain_models.BranchesOnValue", tmp_path)
    assert result.failure.kind is FailureKind.capture_error
    done = run(script)
    assert done.returncode == 1
    assert "Could not guard on data-dependent expression" in result.failure.cause
    assert "Could not guard on data-dependent expression" in done.stderr
    assert "TorchExportError" in done.stderr


def test_an_unsupported_operator_is_reproduced(tmp_path):
    result, script = fail("plain_models.TakesSingularValues", tmp_path)
    assert result.failure.kind is FailureKind.unsupported_op
    done = run(script)
    assert done.returncode == 1
    missing = "No ONNX function found for <OpOverload(op='aten._linalg_svd', overload='default')>"
    assert missing in result.failure.cause
    assert missing in done.stderr
    assert sorted(path.name for path in script.parent.iterdir()) == ["repro.py", "spec.json", "torch_onnx_report.md"]
    assert (script.parent / "spec.json").read_bytes() == ExportDirectory(tmp_path).spec.read_bytes()


@pytest.mark.slow
def test_randomness_is_reproduced(tmp_path):
    result, script = fail("plain_models.DrawsNoise", tmp_path)
    assert result.failure.kind is FailureKind.nondeterministic
    done = run(script)
    assert done.returncode == 1
    assert "torch run twice: different" in done.stdout


@pytest.mark.slow
def test_a_narrowed_dim_is_reproduced(tmp_path):
    result, script = fail("plain_models.BranchesOnSize", tmp_path)
    assert result.failure.kind is FailureKind.dim_narrowed
    done = run(script)
    assert done.returncode == 1
    assert "x, axis 0: declared n from 1 to 16, captured VR[4, int_oo]" in done.stdout


def test_a_model_that_cannot_be_built_is_reproduced(tmp_path):
    _, script = fail("plain_models.CannotBeBuilt", tmp_path)
    done = run(script)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: no such size: -3")


def test_a_module_that_was_handed_over_has_its_place(tmp_path):
    spec = faulty_models.make_spec("plain_models.DrawsNoise")
    run_export(spec, tmp_path, plain_models.DrawsNoise(), threads=1)
    script = ExportDirectory(tmp_path).repro / "repro.py"
    assert "# PUT YOUR MODULE HERE" in script.read_text()
    assert run(script).stderr.splitlines()[-1] == "NotImplementedError: return the module here"


def test_weights_come_from_their_file(tmp_path):
    spec = faulty_models.make_spec("plain_models.DrawsNoise", weights="w.pt")
    text = render_script(describe_result(spec, failure(), 0.0))
    assert "torch.load('w.pt', map_location='cpu', weights_only=True)" in text
    spec.model.weights = "w.safetensors"
    assert "load_file('w.safetensors')" in render_script(describe_result(spec, failure(), 0.0))


def failure(cause: str = "it is wrong") -> Failure:
    return Failure(step=Step.parity, kind=FailureKind.parity_failed, cause=cause, hint="")


FILLS = {
    "normal": Input(["n", 3]),
    "half": Input(["n", 3], DType.float16),
    "uniform": Input([3, "m"], DType.float64, Fill(FillKind.uniform, low=-2.5, high=7.1)),
    "whole": Input(["n"], DType.int32, Fill(FillKind.randint, low=-3, high=30)),
    "mask": Input(["n", "m"], DType.bool, Fill(FillKind.randint, low=0, high=2)),
    "count": Input(["n", "m"], DType.int64, Fill(FillKind.arange)),
    "single": Input([], DType.int64, Fill(FillKind.arange)),
    "ones": Input(["n"], DType.uint8, Fill(FillKind.ones)),
    "zeros": Input(["n"], DType.bfloat16, Fill(FillKind.zeros)),
    "constant": Input([2], DType.float32, Fill(FillKind.constant, value=0.1)),
}


def test_the_inputs_are_those_of_the_export():
    spec = faulty_models.make_spec(
        inputs=FILLS, dims={"n": faulty_models.Dim(1, 9, 4), "m": faulty_models.Dim(1, 9, 5)}
    )
    text = render_script(describe_result(spec, failure(), 0.0))
    tree = ast.parse(text)
    wanted = [node for node in tree.body if getattr(node, "name", "") in ("make_inputs", "generator")]
    names: dict[str, object] = {"torch": torch, "zlib": __import__("zlib")}
    exec("\n".join(ast.unparse(node) for node in wanted), names)
    made = names["make_inputs"]({"n": 7, "m": 2}, 11)
    expected = make_inputs(spec.model, Case("any", {"n": 7, "m": 2}, 11))
    assert list(made) == list(expected)
    for name, tensor in expected.items():
        assert made[name].dtype is tensor.dtype
        assert torch.equal(made[name], tensor), name


def test_the_failing_case_is_the_one_that_runs(tmp_path):
    spec = faulty_models.make_spec()
    spec.model.source = NESTED
    result = run_export(spec, tmp_path, build_module(spec.model), threads=1)
    [case] = [case for case in result.cases if not case.passed]
    text = (ExportDirectory(tmp_path).repro / "repro.py").read_text()
    assert f"CASE = ({{'n': 7}}, {case.seed})" in text
    assert "EXAMPLE = ({'n': 4}, 0)" in text


@pytest.mark.parametrize("cause", ['"""', "a\nb $opset {x} \\", "é" * 300, "'''"])
def test_a_cause_cannot_break_the_script(cause):
    text = render_script(describe_result(faulty_models.make_spec(), failure(cause), 0.0))
    ast.parse(text)
    assert re.search(r"^#   cause", text, re.MULTILINE)


def test_values_that_are_no_names_are_passed_all_the_same():
    spec = faulty_models.make_spec()
    spec.model.source = {"_target_": "a.b.C.make", "one": [1, {"_target_": "d.e"}], "b-c": None, "long": ["x" * 60] * 3}
    text = render_script(describe_result(spec, failure(), 0.0))
    ast.parse(text)
    assert "import a.b\n" in text
    assert "import d\n" in text
    assert "one=[1, d.e()]" in text
    assert "**{'b-c': None}" in text


def test_a_passed_export_leaves_no_bundle_and_clears_an_old_one(tmp_path):
    directory = ExportDirectory(tmp_path)
    write_bundle(directory, describe_result(faulty_models.make_spec(), failure(), 0.0))
    assert (directory.repro / "repro.py").exists()
    assert run_export(faulty_models.make_spec(), tmp_path, threads=1).failure is None
    assert not directory.repro.exists()


def test_a_bundle_that_cannot_be_written_does_not_hide_the_failure(tmp_path, caplog):
    spec = faulty_models.make_spec()
    result = describe_result(spec, failure(), 0.0)
    broken = dataclasses.replace(result, spec=dataclasses.replace(spec, model=None))
    write_bundle(ExportDirectory(tmp_path), broken)
    assert "repro.py could not be written" in caplog.text
