"""A mistake in the config or on the command line: exit code 2, a short message, and nothing started."""

import shutil
import sys
from pathlib import Path

import pytest
from project import Project

CASES = {
    "unknown model": (["+model=mlpp"], "there is no 'mlpp'; did you mean 'mlp'?"),
    "no model": ([], "+model=NAME"),
    "model without plus": (["model=mlp"], "write +model=NAME, with a plus"),
    "unknown release": (["+release=zo"], "did you mean 'zoo'?"),
    "misspelt key": (
        ["+model=mlp", "export.opest=18"],
        "export.opest: unknown key; did you mean export.opset_version?",
    ),
    "misspelt key with plus": (["+model=mlp", "+exprt.optimize=none"], "exprt: unknown key; did you mean export?"),
    "misspelt group with plus": (["+modle=mlp"], "modle: unknown key; did you mean model?"),
    "wrong type": (["+model=mlp", "export.opset_version=new"], "export.opset_version: Value 'new' of type 'str'"),
    "wrong choice": (["+model=mlp", "export.optimize=fast"], "export.optimize: there is no pass 'fast'"),
    "out of range": (["+model=mlp", "export.opset_version=29"], "export.opset_version: 29 is not within 1 to 28"),
    "undeclared dim": (["+model=mlp", "model.inputs.tensor_x.shape=[btch,8]"], "did you mean 'batch'?"),
    "unknown input": (
        ["+model=mlp", "+model.inputs.tensor_y={shape: [batch, 8]}"],
        "takes no 'tensor_y'; did you mean 'tensor_x'?",
    ),
    "missing key": (["+model=mlp", "+model.dims.time={min: 1, max: 4}"], "model.dims.time.example: is missing"),
    "two exports with one id": (["-m", "+model=mlp,two_tower", "id=same"], "two exports are named 'same'"),
    "misspelt class": (
        ["+model=mlp", "model.source._target_=exporter.zoo.mlp.MPL"],
        "did you mean exporter.zoo.mlp.MLP?",
    ),
    "missing module": (["+model=mlp", "model.source._target_=my_modles.Net"], "there is no module 'my_modles'"),
    "missing weights": (["+model=mlp", "model.weights=gone.safetensors"], "there is no file 'gone.safetensors'"),
    "a name that leaves the folder": (["+model=mlp", "id=../mlp"], "id: '../mlp' must be"),
    "settings that differ in a sweep": (["-m", "+model=mlp", "executor.workers=1,2"], "holds for a whole batch"),
    "misspelt input beside **kwargs": (
        ["+model=bert", "~model.inputs.input_ids", "+model.inputs.input_idz={shape: [batch, seq]}"],
        "takes no 'input_idz'; did you mean 'input_ids'?",
    ),
    "no workers": (["+model=mlp", "executor.workers=0"], "executor.workers: 0 must be at least 1"),
    "wrong dtype": (
        ["+model=mlp", "model.inputs.tensor_x.dtype=flot32"],
        "model.inputs.tensor_x.dtype: Invalid value 'flot32'",
    ),
    "two models in one job": (["+model=[mlp,two_tower]"], "one job has one model"),
    "a release of other models": (["+release=zoo", "+model=mlp"], "this run is not of those"),
    "sweep without jobs": (["-m", "+model=glob(nothing*)"], "a sweep without jobs"),
    "broken interpolation": (["+model=mlp", "model.seed=${sed}"], "sed"),
    "broken override": (["+model=mlp", "export"], "export"),
    "missing config directory": (["--config-dir", "nowhere", "+model=mlp"], "nowhere"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_in_a_few_words_before_anything_starts(folder: Project, case: str) -> None:
    arguments, message = CASES[case]
    done = folder.run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 15
    assert done.stdout == ""
    assert not folder.runs()
    assert not folder.published()


@pytest.mark.parametrize(
    "arguments",
    [
        ["+model=mlp", "tracking.uri=[URI]"],
        ["+model=mlp", "tracking.uri=URI{"],
        ["-m", "+model=glob(nothing*)", "tracking.uri=URI"],
        ["+model=mlp", "-m", "tracking.uri=URI"],
    ],
    ids=["wrong type", "broken override", "sweep without jobs", "flags between overrides"],
)
def test_no_complaint_repeats_a_password(folder: Project, arguments: list[str]) -> None:
    done = folder.run(*(one.replace("URI", "http://me:hunter2@127.0.0.1:1") for one in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "hunter2" not in done.stderr


# As root, who may read and write everything, without the capabilities to do so.
PLAIN_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not installed")


@needs_setpriv
@pytest.mark.parametrize("name", ["weights.safetensors", "locked/weights.safetensors"], ids=["file", "folder"])
def test_a_checkpoint_that_may_not_be_read_is_named_with_its_model(folder: Project, name: str) -> None:
    path = folder.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"w" * (2 << 20))
    (path if path.parent == folder.path else path.parent).chmod(0)
    try:
        command = [*PLAIN_USER, sys.executable, "-m", "pipeline", "+model=mlp", f"model.weights={name}"]
        done = folder.call(*command)
    finally:
        path.parent.chmod(0o755)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "modelpress: mlp: cannot read what it is made of: [Errno 13] Permission denied" in done.stderr
    assert Path(name).name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not folder.runs()


@needs_setpriv
@pytest.mark.parametrize("name", ["exports", "runs", "metrics"])
def test_output_that_may_not_be_written_is_named_with_its_key(folder: Project, name: str) -> None:
    (folder.path / name).mkdir(exist_ok=True)
    (folder.path / name).chmod(0o555)
    try:
        done = folder.call(*PLAIN_USER, sys.executable, "-m", "pipeline", "+model=mlp", "tracking=off")
    finally:
        (folder.path / name).chmod(0o755)
    assert done.returncode == 5, done.stdout + done.stderr
    assert name in done.stderr
    assert f"output.{name}=DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not folder.runs()
