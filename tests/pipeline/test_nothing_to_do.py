"""A hundred published exports, all up to date: the command that finds this out loads nothing heavy."""

import re
import subprocess
import sys
import time
from pathlib import Path

from project import REPOSITORY, Project, make_environment

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.spec import ExportSpec
from pipeline import cli
from pipeline.fingerprint import take_fingerprint

ARGUMENTS = ["-m", "+model=mlp", "model.seed=range(0,100)"]
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "transformers", "mlflow", "dvc", "jinja2"}


def publish_export(spec: ExportSpec) -> None:
    """What an earlier run would have left."""
    directory = ExportDirectory(Path("exports") / spec.id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(f"the graph of {spec.id}".encode())
    write_json(directory.spec, spec)
    write_json(directory.fingerprint, take_fingerprint(spec))
    write_result(directory, describe_result(spec, None, time.time(), files=directory.record_files()))


def test_a_hundred_exports_that_are_up_to_date_load_nothing_heavy_and_start_no_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.register()
    argv = ["modelpress", *ARGUMENTS]
    composed = cli._compose(argv)
    assert composed is not None
    for job in cli._read_jobs(composed, argv):
        publish_export(job.spec)
    # The flag is handed on to the fork server, so what that imports would be told too.
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", *ARGUMENTS],
        env=make_environment({"PYTHONPATH": str(REPOSITORY)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "hydra.main" in imported
    assert {name.partition(".")[0] for name in imported} & HEAVY == set()
    outcomes = Project(tmp_path).outcomes()
    assert (len(outcomes), set(outcomes.values())) == (100, {"up_to_date"})
