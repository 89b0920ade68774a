"""The bundle of a failed export, and its script, run in a process that cannot import modelpress."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import faulty_models
import numpy as np
import plain_models
import pytest
import torch
from safetensors.torch import save_file

from exporter import DType, ExportDirectory, ExportResult, FailureKind, Fill, FillKind, Input
from exporter.build import build_module
from exporter.cases import Case, choose_cases
from exporter.conductor import describe_result, run_export
from exporter.evidence import CaseRecord
from exporter.inputs import make_inputs
from exporter.repro import render_script, write_bundle
from exporter.result import Failure, Step
from exporter.weights import same_bytes

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


DIFFERENCES = {
    "offsets": Input(["n"], DType.int64),
    "last": Input([], DType.int64),
    "x": Input(["n", 5]),
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
    assert result.failure.kind is FailureKind.baked_branch
    done = run(ExportDirectory(tmp_path).repro / "repro.py")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "the failure is reproduced")
    [missed] = [case.outputs[0] for case in result.cases if not case.passed]
    expected = f"max_abs_diff {missed.max_abs_diff:.3g}, {missed.num_mismatched} of {missed.num_elements} elements"
    assert expected in done.stdout


def test_a_capture_failure_is_reproduced(tmp_path):
    result, script = fail("plain_models.BranchesOnValue", tmp_path)
    assert result.failure.kind is FailureKind.data_dependent
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
    assert result.failure.ops == ["aten._linalg_svd.default"]
    assert "No ONNX function found for <OpOverload(op='aten._linalg_svd', overload='default')>" in done.stderr
    assert sorted(path.name for path in script.parent.iterdir()) == ["repro.py", "spec.json", "torch_onnx_report.md"]
    assert (script.parent / "spec.json").read_bytes() == ExportDirectory(tmp_path).spec.read_bytes()


@pytest.mark.slow
def test_randomness_is_reproduced(tmp_path):
    result, script = fail("plain_models.DrawsNoise", tmp_path)
    assert result.failure.kind is FailureKind.nondeterministic
    done = run(script)
    assert done.returncode == 1
    assert "torch run twice: different" in done.stdout


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


FLOATS = (DType.float16, DType.bfloat16, DType.float8_e4m3fn, DType.float8_e5m2, DType.complex64, DType.complex128)
FILLS = {
    **{f"normal_{dtype.value}": Input(["n", "2*m + 9"], dtype) for dtype in FLOATS},
    **{f"uniform_{dtype.value}": Input(["n"], dtype, Fill(FillKind.uniform, low=-1, high=3)) for dtype in FLOATS},
    **{f"ones_{dtype.value}": Input(["n"], dtype, Fill(FillKind.ones)) for dtype in DType},
    **{f"count_{dtype.value}": Input(["(n - 1)//2 + 5"], dtype, Fill(FillKind.arange)) for dtype in DType},
    **{f"whole_{dtype.value}": Input(["n"], dtype, Fill(FillKind.randint, low=0, high=2)) for dtype in DType},
    **{f"constant_{dtype.value}": Input(["n"], dtype, Fill(FillKind.constant, value=1)) for dtype in DType},
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


def make_as_script(spec, sizes, seed):
    """The inputs that the script of a failed export makes."""
    text = render_script(describe_result(spec, failure(), 0.0))
    script: dict[str, object] = {"__name__": "script"}
    exec(compile(text, "repro.py", "exec"), script)
    return script["make_inputs"](sizes, seed)


def assert_same_inputs(spec, sizes, seed=11):
    made = make_as_script(spec, sizes, seed)
    expected = make_inputs(spec.model, Case("any", sizes, seed))
    assert list(made) == list(expected)
    for name, tensor in expected.items():
        assert made[name].dtype is tensor.dtype, name
        assert same_bytes(made[name], tensor), name


def test_the_inputs_are_those_of_the_export():
    dims = {"n": faulty_models.Dim(1, 9, 4), "m": faulty_models.Dim(1, 9, 5)}
    assert_same_inputs(faulty_models.make_spec(inputs=FILLS, dims=dims), {"n": 7, "m": 2})


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("key", [None, "x"])
def test_inputs_from_files_are_those_of_the_export(tmp_path, suffix, key):
    data = np.arange(15, dtype=np.float32).reshape(3, 5)
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        np.save(path, data)
    elif suffix == ".npz":
        np.savez(path, x=data, other=data + 1)
    else:
        save_file({"x": torch.from_numpy(data)}, path)
    inputs = {"x": Input(["n", 7], DType.bfloat16, Fill(FillKind.file, path=str(path), key=key))}
    assert_same_inputs(faulty_models.make_spec(inputs=inputs), {"n": 2})


def test_inputs_from_a_factory_are_those_of_the_export():
    factory = {"_target_": "plain_models.make_sorted", "high": 100}
    spec = faulty_models.make_spec("plain_models.Differences", DIFFERENCES, input_factory=factory)
    assert_same_inputs(spec, {"n": 6})
    spec.model.inputs["last"].dtype = DType.int32
    with pytest.raises(TypeError, match="the input factory gives 'last'"):
        make_as_script(spec, {"n": 6}, 11)


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


def stopped(cause: str) -> ExportResult:
    """An export that parity stopped in, after all the cases that are chosen beforehand."""
    spec = faulty_models.make_spec()
    cases = [CaseRecord(name=case.name, sizes=case.sizes, seed=case.seed, outputs=[]) for case in choose_cases(spec)]
    failed = Failure(step=Step.parity, kind=FailureKind.forward_error, cause=cause, hint="")
    return dataclasses.replace(describe_result(spec, failed, 0.0), cases=cases)


def test_a_case_that_was_made_to_break_an_assumption_is_the_one_that_runs():
    result = stopped("PyTorch in case breaks Ne(n, 9) (n=9): it is nine")
    text = render_script(result)
    assert f"CASE = ({{'n': 9}}, {len(result.cases)})" in text
    assert "left out" not in text


def test_a_case_whose_sizes_nobody_knows_is_left_out_aloud():
    assert "#   left out  the case that failed, whose sizes are not on record" in render_script(stopped("it is nine"))


def test_the_bundle_of_a_crashed_worker_takes_no_torch():
    program = """
import sys
from exporter import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.conductor import describe_result
from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.repro import render_script
model = ModelSpec(name="m", source={"_target_": "torch.nn.ReLU"}, inputs={"input": Input(shape=[2])})
spec = ExportSpec(id="m", model=model, precision=Precision(name=PrecisionName.fp32, rtol=1e-4, atol=1e-5))
failure = make_failure(None, FailureKind.crashed, "killed by signal 11")
print(render_script(describe_result(spec, failure, 0.0)))
assert not {"torch", "numpy", "onnx"} & set(sys.modules)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "#   left out  the process that the export ran in" in done.stdout
    ast.parse(done.stdout)
