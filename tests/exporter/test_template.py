"""What a worker finds in a fork of the template, with and without preloaded packages."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import exporter
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.result import Status

FORK = """
import gc, os, sys, threading
from multiprocessing import Pipe
import exporter.template
from exporter.pages import page
from exporter import readiness
from exporter.worker import run_worker

assert readiness._recorded.is_warm, readiness._recorded
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
assert threading.active_count() == 1
compiled = {name for _, name in page._make_environment(page.TEMPLATES).cache}
assert {"base.html.j2", "report.html.j2"} <= compiled
log, output = Pipe(duplex=False)
if os.fork() == 0:
    run_worker(sys.argv[1], 1, output)
output.close()
os.wait()
os.write(1, os.read(log.fileno(), 1_000_000))
"""


def fork_worker(path, spec, preloads=""):
    """The result of an export in a fork of the template, and the worker's log."""
    path.mkdir()
    write_json(path / "spec.json", spec)
    folders = [str(Path(__file__).parents[1] / "support"), str(path.parent), str(Path(exporter.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONWARNINGS": "ignore", "MODELPRESS_PRELOAD": preloads}
    command = [sys.executable, "-c", FORK, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return ExportDirectory(path).read_result(), done.stdout


def test_a_preload_that_set_up_logging_does_not_keep_the_worker_from_its_log(tmp_path, perceptron):
    (tmp_path / "logs.py").write_text("import logging\nlogging.basicConfig(level=logging.ERROR)")
    result, log = fork_worker(tmp_path / "out", perceptron.spec, "logs")
    assert result.status is Status.passed
    assert "INFO exporter.worker: passed in" in log


@pytest.mark.slow
def test_preloaded_packages_leave_the_bytes_of_other_models_alone(tmp_path, perceptron):
    # transformers brings pytree nodes, operators' fake versions and hundreds of modules into every fork.
    pytest.importorskip("transformers")
    preloads = "transformers.BertModel,transformers.models.resnet.modeling_resnet.ResNetModel"
    plain, _ = fork_worker(tmp_path / "plain", perceptron.spec)
    preloaded, _ = fork_worker(tmp_path / "preloaded", perceptron.spec, preloads)
    assert plain.status is Status.passed
    assert [file.sha256 for file in plain.files] == [file.sha256 for file in preloaded.files]


# What a batch does before it knows what its models need; what it prints is the server's process id.
BATCH = """
import os, subprocess, sys, time
path = sys.argv[1]
os.mkfifo(path)
os.open(path, os.O_RDWR)
environment = {**os.environ, "MODELPRESS_PRELOAD": f"@{os.getpid()}:{path}"}
print(subprocess.Popen([sys.executable, "-c", "import exporter.template"], env=environment).pid, flush=True)
time.sleep(300)
"""


def test_a_template_whose_batch_was_killed_while_it_imported_ends_by_itself(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(exporter.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", BATCH, str(tmp_path / "preloads")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as batch:
        server = psutil.Process(int(batch.stdout.readline()))
        batch.kill()
    try:
        deadline = time.monotonic() + 60
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            # Left alone it would wait for names for five minutes.
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        with suppress(psutil.NoSuchProcess):
            server.kill()
