"""A batch has the installed packages that its models import imported once, before its workers are forked."""

from project import Project

# isympy is a module of sympy's that nothing else imports; pandas starts a thread, and so is left to the worker.
MODEL = """
import sys
print("there before:", "isympy" in sys.modules, "pandas" in sys.modules)
import isympy
import pandas
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
"""
CONFIG = """
name: own
source: {_target_: my_models.Net}
dims:
  batch: {min: 1, max: 16, example: 4}
inputs:
  input: {shape: [batch, 4]}
"""


def test_what_is_safe_to_import_beforehand_is_there_when_the_model_is_imported(folder: Project) -> None:
    (folder.path / "my_models.py").write_text(MODEL)
    (folder.path / "my_conf/model").mkdir(parents=True)
    (folder.path / "my_conf/model/own.yaml").write_text(CONFIG)
    done = folder.run("--config-dir", "my_conf", "+model=own", "tracking=off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "there before: True False" in (folder.path / "exports/own/worker.log").read_text()
