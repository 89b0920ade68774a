"""Whatever becomes of the template, a fork server that is not fit to fork from is found out, with the reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import exporter
from exporter.plain_data import from_plain
from exporter.readiness import Readiness

ASK = """
import json, multiprocessing, sys
from exporter.plain_data import to_plain
from exporter.readiness import ask_readiness

def start(target, arguments, name):
    process = context.Process(target=target, args=tuple(arguments), name=name)
    process.start()
    return process

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([sys.argv[1]])
print(json.dumps(to_plain(ask_readiness(start))))
"""

NO_TORCH = {"torch/__init__.py": "raise ImportError('libtorch_cpu.so: cannot open shared object file\\nnor that one')"}


def ask(path, files=(), preloads=(), template="exporter.template"):
    """The record of a server that finds these files first, and what came to the terminal meanwhile."""
    for name, text in dict(files).items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{path}{os.pathsep}{Path(exporter.__file__).parents[1]}",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "MODELPRESS_PRELOAD": ",".join(preloads),
    }
    command = [sys.executable, "-c", ASK, template]
    done = subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return from_plain(Readiness, json.loads(done.stdout)), done.stderr


def test_a_server_that_did_it_all_is_fit_and_has_one_thread(tmp_path):
    readiness, terminal = ask(tmp_path)
    assert readiness == Readiness(is_imported=True, is_warm=True, num_threads=1)
    assert terminal == ""


def test_a_torch_that_cannot_be_imported_is_named(tmp_path):
    readiness, terminal = ask(tmp_path, NO_TORCH)
    words = "ImportError: libtorch_cpu.so: cannot open shared object file nor that one"
    assert readiness.problem == f"importing what an export needs: {words}"
    assert (readiness.is_imported, readiness.is_warm) == (False, False)
    # The story is for a log, not for the terminal.
    assert "Traceback" in readiness.output
    assert terminal == ""


@pytest.mark.parametrize("words", ["raise SystemExit('licence expired')", "raise RuntimeError('licence expired')"])
def test_a_torch_that_does_not_let_us_go_on_is_named(tmp_path, words):
    readiness, _ = ask(tmp_path, {"torch/__init__.py": words})
    assert readiness.problem.endswith("licence expired")


def test_a_tiny_export_that_fails_leaves_a_server_that_is_not_fit(tmp_path):
    broken = {"breaks_export.py": "import torch\ntorch.onnx.export = lambda *arguments, **others: 1 / 0"}
    readiness, terminal = ask(tmp_path, broken, ["breaks_export"])
    assert readiness.problem == "the tiny export: ZeroDivisionError: division by zero"
    assert (readiness.is_imported, readiness.is_warm) == (True, False)
    assert terminal == ""


def test_what_the_server_itself_swallowed_is_found_by_the_first_process(tmp_path):
    readiness, _ = ask(tmp_path, NO_TORCH, template="exporter.tempalte")
    assert "libtorch_cpu.so" in readiness.problem


def test_a_template_that_only_the_server_did_not_find_is_a_problem_too(tmp_path):
    readiness, _ = ask(tmp_path, template="exporter.tempalte")
    assert "the fork server did not import exporter.template" in readiness.problem


DEADLY = ["import os; os._exit(3)", "raise RuntimeError", "import ctypes; ctypes.string_at(0)"]


@pytest.mark.parametrize("words", DEADLY)
def test_a_server_that_dies_of_its_imports_is_a_problem(tmp_path, words):
    readiness, _ = ask(tmp_path, {"deadly.py": words}, template="deadly")
    assert readiness.problem.startswith("the fork server ended while it was starting")


def test_an_import_that_takes_the_server_with_it_is_a_problem(tmp_path):
    readiness, _ = ask(tmp_path, {"deadly.py": "import os; os._exit(3)"}, ["deadly"])
    assert readiness.problem.startswith("the fork server ended while it was starting")


def test_a_first_process_that_ends_at_once_is_a_problem(tmp_path):
    deadly = "import os; os.register_at_fork(after_in_child=lambda: os._exit(0))"
    readiness, _ = ask(tmp_path, {"deadly.py": deadly}, ["deadly"])
    assert readiness.problem == "a process forked from the fork server ended without an answer (EOFError)"


# As transformers does it.
LAZY = """
from importlib import import_module

def __getattr__(name):
    if name == "Model":
        return import_module("package.model").Model
    raise AttributeError(name)
"""
FILES = {
    "starts_thread.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "ends_thread.py": "import threading\none = threading.Thread(target=id, args=(0,))\none.start(); one.join()",
    "lacks_another.py": "import nowhere_to_be_found",
    "exits.py": "import sys\nsys.exit('exits: go away')",
    "takes_double.py": "import torch\ntorch.set_default_dtype(torch.float64)",
    "goes_away.py": "import os\nos.chdir('/')",
    "interrupts.py": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)",
    "talks.py": "import os\nprint('from Python')\nos.system('echo from a child')",
    "logs.py": "import logging\nlogging.basicConfig(level=logging.ERROR)",
    "package/__init__.py": LAZY,
    "package/model.py": "class Model: pass",
}


def test_each_preload_that_fails_or_is_unsafe_is_named_and_stops_nothing(tmp_path):
    names = [*(name.removesuffix(".py") for name in FILES if "/" not in name), "package.Model", "package.Other"]
    names += ["package.model.Model.mro", "nowhere.at_all"]
    readiness, terminal = ask(tmp_path, FILES, names)
    assert (readiness.is_warm, readiness.problem) == (True, "")
    assert readiness.unsafe_preloads == ["starts_thread", "takes_double", "goes_away"]
    assert readiness.preload_problems == [
        "starts_thread: importing it changes: threads",
        "lacks_another: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        "exits: SystemExit: exits: go away",
        "takes_double: importing it changes: torch's default dtype",
        "goes_away: importing it changes: the working directory",
        "package.Other: AttributeError: Other",
        "nowhere.at_all: ModuleNotFoundError: No module named 'nowhere'",
    ]
    assert readiness.num_threads == 2
    assert "from Python" in readiness.output
    assert "from a child" in readiness.output
    assert terminal == ""


def test_preloads_that_are_safe_leave_the_server_fit_though_one_fails(tmp_path):
    readiness, _ = ask(tmp_path, FILES, ["ends_thread", "lacks_another", "talks", "interrupts", "package.Model"])
    assert len(readiness.preload_problems) == 1
