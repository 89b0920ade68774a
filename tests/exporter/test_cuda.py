"""Whether there is a GPU is found out without torch, and said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import faulty_models
import pytest

import exporter
from exporter import ConfigError, Device, cuda
from exporter.conductor import run_export

WITH_CUDA = "from typing import Optional\n__version__ = '2.13.0+cu128'\ndebug = False\ncuda: Optional[str] = '12.8'\n"
WITHOUT = "__version__ = '2.13.0+cpu'\ndebug = False\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
WITH_ROCM = "__version__ = '2.13.0+rocm'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n"


class Driver:
    """Stands for libcuda.so.1, of which no more than two functions are used."""

    def __init__(self, count=1, starts=0):
        self.count, self.starts = count, starts

    def cuInit(self, flags):  # noqa: N802
        assert flags == 0
        return self.starts

    def cuDeviceGetCount(self, pointer):  # noqa: N802
        pointer._obj.value = self.count
        return 0


def ask(tmp_path, text=WITH_CUDA, driver=None):
    path = tmp_path / "version.py"
    path.write_text(text)

    def load(name):
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    return cuda.why_no_cuda(load, path)


def test_a_gpu_and_a_torch_for_it_leave_nothing_to_complain_of(tmp_path):
    assert ask(tmp_path, driver=Driver(count=2)) == ""


@pytest.mark.parametrize("text", [WITHOUT, WITH_ROCM])
def test_a_torch_without_cuda_is_to_blame_whatever_the_driver_says(tmp_path, text):
    reason = ask(tmp_path, text, Driver())
    assert "is built without CUDA" in reason
    assert "torch 2.13.0+" in reason


def test_no_torch_is_said(tmp_path):
    assert cuda.why_no_cuda(torch_file=tmp_path / "version.py") == "there is no torch"


def test_no_driver_is_said(tmp_path):
    assert "no NVIDIA driver" in ask(tmp_path)


@pytest.mark.parametrize("driver", [Driver(count=0), Driver(starts=100)])
def test_a_hidden_gpu_is_none_and_what_hides_it_is_said(tmp_path, monkeypatch, driver):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "shows no GPU;" in ask(tmp_path, driver=driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "(CUDA_VISIBLE_DEVICES is '')" in ask(tmp_path, driver=driver)


def test_a_driver_that_does_not_start_is_said_with_its_error(tmp_path):
    assert "CUDA error 803" in ask(tmp_path, driver=Driver(starts=803))


def test_the_installed_torch_is_the_one_that_is_asked():
    torch = pytest.importorskip("torch")
    assert cuda._find_torch() == Path(torch.version.__file__)
    assert bool(cuda._blame_torch(cuda._find_torch())) == (torch.version.cuda is None)


@pytest.mark.skipif(not cuda.why_no_cuda(), reason="there is a GPU")
def test_a_library_call_without_a_gpu_is_refused_and_leaves_nothing(tmp_path):
    spec = faulty_models.make_spec()
    spec.export.device = Device.cuda
    with pytest.raises(ConfigError, match=r"^export.device: cuda, but .*; .*export.device=cpu$") as caught:
        run_export(spec, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_a_body_hides_comes_back(monkeypatch):
    for before in ("0,1", None):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if before is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        with cuda.hidden_gpus():
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def run_python(code):
    root = Path(exporter.__file__).parents[1]
    environment = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


# Poses as a torch that counts GPUs as it does with PYTORCH_NVML_BASED_CUDA_CHECK=1, and tells when CUDA is started.
POSE = """
import os, torch
def start(*arguments):
    raise SystemExit("CUDA was started")
torch.cuda.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != ""
torch.cuda.get_rng_state = start
from exporter import cuda
"""
TELL = "from exporter import readiness, template; print(readiness._recorded.is_warm, readiness._recorded.problem)"


def test_the_template_that_workers_are_forked_from_never_starts_cuda():
    assert run_python(POSE + TELL) == (0, "True \n")


def test_the_template_would_start_cuda_if_nothing_hid_it():
    # What makes the test above one that can fail.
    code, output = run_python(f"{POSE}import contextlib; cuda.hidden_gpus = contextlib.nullcontext; {TELL}")
    assert (code, output) == (0, "False the tiny export: SystemExit: CUDA was started\n")


def test_torch_asks_no_driver_for_gpus_that_are_hidden():
    pose = "import torch; torch.cuda._is_compiled = lambda: True; torch._C._cuda_getDeviceCount = lambda: 1 / 0"
    ask = "print(torch.cuda.is_available())"
    assert run_python(f"{pose}; from exporter import cuda; cuda.hide_gpus(); {ask}") == (0, "False\n")
