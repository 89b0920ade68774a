"""What libraries and models print and warn of: in the logs, all of it, and nowhere else."""

import sys

import pytest
from project import Project, make_environment
from terminal import run_on_terminal

NOISY = """
import logging
import os
import sys
import warnings

import torch

warnings.warn("old-fashioned import", FutureWarning)
logging.getLogger("a_library").warning("no extra found")
os.write(2, b"from C\\n")


class Noisy(torch.nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        print("built with words")

    def forward(self, x):
        warnings.warn("forward is deprecated", DeprecationWarning)
        sys.stderr.write("bar 9%\\rbar 100%\\n")
        return super().forward(x)
"""
CONFIG = "name: noisy\nsource: {_target_: noisy.Noisy}\ninputs: {x: {shape: [2, 3]}}\n"
PLANTED = ("old-fashioned import", "no extra found", "from C", "built with words", "bar 100%")


@pytest.mark.slow
def test_a_noisy_model_and_a_new_mlflow_store_leave_the_terminal_clean(folder: Project) -> None:
    (folder.path / "noisy.py").write_text(NOISY)
    (folder.path / "conf/model").mkdir(parents=True)
    (folder.path / "conf/model/noisy.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "pipeline", "--config-dir", "conf", "+model=noisy"]
    environment = make_environment({"TERM": "xterm-256color", "LANG": "C.UTF-8"})
    done = run_on_terminal(command, columns=100, cwd=folder.path, env=environment)
    assert done.status == 0, done.text
    log = (folder.path / "exports/noisy/worker.log").read_text()
    for words in PLANTED:
        assert words in log
        assert words not in done.text
    assert [line for line in done.screen if line][1:3] == [
        line for line in done.screen if line.startswith(("exp", "noi"))
    ]
    assert "1 export in " in "\n".join(done.screen)
    assert not any(words in done.text for words in ("Warning", "INFO", "alembic", "%|"))
