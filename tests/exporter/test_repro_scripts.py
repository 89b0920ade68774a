"""Scripts of failed exports of every shape, all run in one process that cannot import modelpress."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import plain_models
import pytest
import torch
from faulty_models import make_spec
from safetensors.torch import save_file

from exporter import (
    Dim,
    DType,
    ExportDirectory,
    ExportOptions,
    ExportResult,
    ExportSpec,
    FailureKind,
    Fill,
    FillKind,
    Input,
    Output,
)
from exporter.conductor import describe_result, run_export
from exporter.passes import PASSES
from exporter.repro import render_script
from exporter.repro_model import render_export
from exporter.result import Failure, Rung, Step
from exporter.spec import PassName

# Whether or not modelpress is installed here.
DRIVER = """
import contextlib, io, json, runpy, sys
sys.modules.update(dict.fromkeys(("exporter", "pipeline", "registry_sync")))
for script in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_path(script, run_name="__main__")
            end = 0
        except SystemExit as stopped:
            end = stopped.code
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
    print(json.dumps([end, printed.getvalue()]))
"""

REPRODUCED = "the failure is reproduced"
ALL_IN_ALL = "the failure does not show, but not all of the export is in this script"
N = {"n": Dim(min=1, max=16, example=4)}


@dataclass(frozen=True)
class Reproduced:
    """A failed export, and how its script ended."""

    result: ExportResult
    text: str
    end: int | str
    printed: str

    def shows(self) -> bool:
        """Whether the script measured what the export measured."""
        [*_, missed] = [case for case in self.result.cases if not case.passed]
        if self.result.divergence is not None:
            [missed] = [case for case in self.result.cases if case.name == self.result.divergence.case]
        lines = [
            f"output {index}: max_abs_diff {output.max_abs_diff:.3g}, {output.num_mismatched} of {output.num_elements} "
            for index, output in enumerate(missed.outputs)
            if output.max_abs_diff is not None
        ]
        return bool(lines) and all(line in self.printed for line in lines)


def nested(**source) -> ExportSpec:
    inputs = {
        "value": Input(["n", 3], argument="past[0](1)"),
        "right": Input(["n", 3], argument="images.right"),
        "b": Input(["n", 3], argument="rest(1)"),
        "a": Input(["n", 3], argument="rest(0)"),
        "key": Input(["n", 3], argument="past[0](0)"),
        "x": Input(["n", 3], argument="table.x"),
        "left": Input(["n", 3], argument="images.left"),
    }
    spec = make_spec("plain_models.TakesNested", inputs, N, constants={"mask": None, "mode": "double", "scale": 2.5})
    spec.model.source.update(source)
    return spec


def joined() -> ExportSpec:
    dims = {"n": Dim(min=1, max=4, example=2), "seq": Dim(min=2, max=32, example=6, multiple_of=2)}
    inputs = {
        "more": Input(["n", "seq + 3"]),
        "once": Input(["n", "seq"]),
        "twice": Input(["n", "2*seq"]),
    }
    return make_spec("plain_models.Joins", inputs, dims)


def differing(path: Path) -> ExportSpec:
    np.savez(path / "data.npz", x=np.arange(15, dtype=np.float32).reshape(3, 5), y=np.zeros(3))
    inputs = {
        "offsets": Input(["n"], DType.int64, Fill(FillKind.zeros)),
        "last": Input([], DType.int64, Fill(FillKind.zeros)),
        "x": Input(["n", 4], fill=Fill(FillKind.file, path=str(path / "data.npz"))),
    }
    factory = {"_target_": "plain_models.make_sorted", "high": 100}
    return make_spec("plain_models.Differences", inputs, N, input_factory=factory)


def numbered() -> ExportSpec:
    inputs = {
        "half": Input(["n", 4], DType.bfloat16),
        "eighth": Input(["n", 4], DType.float8_e4m3fn),
        "turn": Input(["n"], DType.complex64),
    }
    return make_spec("plain_models.TakesNumbers", inputs, N)


def tied(path: Path) -> ExportSpec:
    """A checkpoint in two shards, one name for the tied weight, narrower than the model."""
    index = path / "tied.safetensors.index.json"
    torch.manual_seed(3)
    save_file({"first.weight": torch.randn(8, 8).half()}, path / "one.safetensors")
    save_file({"bias": torch.randn(8)}, path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"first.weight": "one.safetensors", "bias": "two.safetensors"}}))
    return make_spec("plain_models.Ties", weights=str(index))


def slightly_off() -> ExportSpec:
    spec = make_spec("plain_models.IsSlightlyOff")
    spec.precision = dataclasses.replace(spec.precision, rtol=1e-3, atol=1e-3)
    return spec


def translated() -> ExportSpec:
    spec = make_spec("own_operators.Shrinks")
    table = {"_target_": "own_operators.make_table", "slope": 1.01}
    spec.export = ExportOptions(custom_translation_table=table, optimize=["fold_constants", "dead_code"], rescue=False)
    return spec


def added() -> ExportSpec:
    dims = {"n": Dim(min=1, max=16, example=4), "m": Dim(min=1, max=16, example=4)}
    return make_spec("plain_models.Adds", {"a": Input(["n", 3]), "b": Input(["m", 3])}, dims)


def misdeclared() -> ExportSpec:
    return make_spec("torch.nn.ReLU", {"input": Input(["n", 8])}, outputs={"y": Output(shape=["n", 9])})


def misshapen() -> ExportSpec:
    """Fails in the check, and has NaN that nothing looked at."""
    return make_spec("plain_models.TakesLogarithm", outputs={"y": Output(shape=["n", 9])})


def quick_specs(path: Path) -> Iterator[tuple[str, ExportSpec]]:
    yield "nested", nested(fault=0.5)
    yield "joined", joined()
    yield "differing", differing(path)
    yield "misdeclared", misdeclared()


def slow_specs(path: Path) -> Iterator[tuple[str, ExportSpec]]:
    yield "numbered", numbered()
    yield "tied", tied(path)
    yield "slightly_off", slightly_off()
    yield "translated", translated()
    yield "added", added()
    yield "narrowed", make_spec("plain_models.BranchesOnSize")
    yield "misshapen", misshapen()
    yield "returns_more", make_spec("plain_models.ReturnsMore")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> dict[str, Reproduced]:
    path = tmp_path_factory.mktemp("quick")
    results = {name: run_export(spec, path / name, threads=1) for name, spec in quick_specs(path)}
    failure = Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="was wrong once", hint="")
    results["mended"] = describe_result(nested(), failure, 0.0)
    (path / "mended" / "repro").mkdir(parents=True)
    (path / "mended" / "repro" / "repro.py").write_text(render_script(results["mended"]))
    return run_scripts(results, path)


@pytest.fixture(scope="module")
def reproduced_slowly(tmp_path_factory) -> dict[str, Reproduced]:
    path = tmp_path_factory.mktemp("slow")
    return run_scripts({name: run_export(spec, path / name, threads=1) for name, spec in slow_specs(path)}, path)


def run_scripts(results: dict[str, ExportResult], path: Path) -> dict[str, Reproduced]:
    scripts = [ExportDirectory(path / name).repro / "repro.py" for name in results]
    ends = run([str(script) for script in scripts], path)
    return {
        name: Reproduced(result, script.read_text(), *end)
        for (name, result), script, end in zip(results.items(), scripts, ends, strict=True)
    }


def run(scripts: list[str], path: Path) -> list[tuple[int | str, str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(plain_models.__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *scripts],
        cwd=path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


QUICK = {
    "nested": FailureKind.parity_failed,
    "joined": FailureKind.baked_branch,
    "differing": FailureKind.parity_failed,
}


@pytest.mark.parametrize("name", QUICK)
def test_the_script_measures_what_the_export_measured(reproduced, name):
    assert_reproduced(reproduced[name], QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numbered", "tied", "slightly_off", "translated"])
def test_the_script_measures_what_the_export_measured_in_other_shapes(reproduced_slowly, name):
    assert_reproduced(reproduced_slowly[name], FailureKind.parity_failed)


def assert_reproduced(found: Reproduced, kind: FailureKind) -> None:
    assert found.result.failure.kind is kind
    assert found.end == REPRODUCED
    assert found.shows(), found.printed
    assert "left out" not in found.text


def test_nested_arguments_that_are_right_end_well(reproduced):
    assert reproduced["mended"].end == 0, reproduced["mended"].printed
    assert "'past': [(inputs['key'], inputs['value'])]" in reproduced["mended"].text
    assert "'mask': None" in reproduced["mended"].text


def test_sizes_are_computed_from_dims_and_keep_to_their_multiples(reproduced):
    text = reproduced["joined"].text
    assert "[sizes['n'], 2 * sizes['seq']]" in text
    assert re.search(r"^CASE = \(\{'n': \d, 'seq': 8\}", text, re.MULTILINE)


@pytest.mark.slow
def test_the_noise_floor_judges_in_the_script_as_in_the_export(reproduced_slowly):
    found = reproduced_slowly["slightly_off"]
    [case] = [case for case in found.result.cases if case.name == found.result.divergence.case]
    [output] = case.outputs
    assert (output.num_mismatched, output.noise.verdict) == (0, "wrong")
    assert f"output 0: {output.noise.ratio:.3g} times PyTorch's own rounding error (limit 24)" in found.printed
    assert "#   judge     the noise floor" in found.text


def test_the_story_tells_of_the_ways_round_that_are_not_in_the_script(reproduced):
    found = reproduced["nested"]
    assert [record.rung for record in found.result.rescues] == [Rung.no_optimize]
    assert "#   tried     no_optimize" in found.text
    assert "program.optimize()" in found.text


@pytest.mark.slow
def test_two_dims_that_are_always_equal_are_shown(reproduced_slowly):
    found = reproduced_slowly["added"]
    assert found.result.failure.kind is FailureKind.dim_conflict
    assert found.end == REPRODUCED
    assert "b, axis 0: declared m, captured n" in found.printed


@pytest.mark.slow
def test_a_narrowed_dim_is_shown(reproduced_slowly):
    found = reproduced_slowly["narrowed"]
    assert found.result.failure.kind is FailureKind.dim_narrowed
    assert found.end == REPRODUCED
    assert "x, axis 0: declared n from 1 to 16, captured VR[4, int_oo]" in found.printed


def test_what_is_not_in_the_script_is_said_and_never_taken_for_well(reproduced):
    found = reproduced["misdeclared"]
    assert (found.result.failure.step, found.result.failure.kind) == (Step.check, FailureKind.interface_mismatch)
    assert found.end == ALL_IN_ALL
    assert "#   left out  the comparison of names, dtypes and shapes" in found.text


@pytest.mark.slow
def test_another_failure_is_not_taken_for_the_one_that_was(reproduced_slowly):
    found = reproduced_slowly["misshapen"]
    assert found.result.failure.kind is FailureKind.interface_mismatch
    assert found.end == "what failed goes through here, and then the outputs are wrong"


@pytest.mark.slow
def test_another_number_of_outputs_is_reproduced(reproduced_slowly):
    found = reproduced_slowly["returns_more"]
    assert found.result.failure.kind is FailureKind.interface_mismatch
    assert (found.end, found.printed) == (REPRODUCED, "forward returns 2 tensors, the graph 1\n")
    assert "left out" not in found.text


def test_the_scripts_define_and_use_all_that_they_name(reproduced, tmp_path):
    assert_clean(reproduced, tmp_path)


@pytest.mark.slow
def test_the_other_scripts_define_and_use_all_that_they_name(reproduced_slowly, tmp_path):
    assert_clean(reproduced_slowly, tmp_path)


def assert_clean(reproduced: dict[str, Reproduced], path: Path) -> None:
    for name, found in reproduced.items():
        (path / f"{name}.py").write_text(found.text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F,E9", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def captured() -> torch.onnx.ONNXProgram:
    layers = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.Hardswish()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(layers, (torch.randn(1, 2, 8),), dynamo=True, verbose=False, optimize=False)
    assert program is not None
    return program


@pytest.mark.parametrize("name", PassName)
def test_each_pass_is_rendered_as_it_is_run(captured, name):
    spec = make_spec()
    spec.export = ExportOptions(optimize=[name.value])
    [lines] = render_export(spec, separate=False)
    content = ir.to_proto(captured.model)
    wanted, found = (torch.onnx.ONNXProgram(ir.from_proto(content), captured.exported_program) for _ in range(2))
    PASSES[name](wanted)
    # The function without its call of torch.onnx.export.
    imports = [line for line in lines.splitlines() if line.startswith("    from ")]
    passes = lines.partition("dynamic_shapes=DYNAMIC_SHAPES,\n        )\n")[2]
    script: dict[str, Callable[[object], object]] = {}
    exec("\n".join(["def optimize(program):", *imports, passes]), script)
    script["optimize"](found)
    assert ir.to_proto(found.model) == ir.to_proto(wanted.model)


def test_an_unknown_pass_and_another_precision_are_left_out_aloud():
    spec = make_spec()
    spec.export = ExportOptions(optimize=["default", "polish"])
    failure = Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="it is wrong", hint="")
    text = render_script(describe_result(spec, failure, 0.0))
    assert "#   left out  the passes polish" in text
    assert "# Left out: the pass polish." in text
    assert 'sys.exit("the failure does not show' in text
