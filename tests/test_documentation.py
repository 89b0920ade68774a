"""The code in the documentation runs, so that it cannot rot."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = (ROOT / "docs/library.md").read_text()
README = (ROOT / "README.md").read_text()


def read_library():
    """All blocks of Python in docs/library.md, in order: one notebook."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", LIBRARY, re.MULTILINE | re.DOTALL))


def read_readme():
    """The indented block after the words that announce it."""
    after = README.split("From a notebook, without Hydra")[1].partition("\n\n")[2]
    lines = after.splitlines()
    end = next(index for index, line in enumerate(lines) if line and not line.startswith("    "))
    return textwrap.dedent("\n".join(lines[:end]))


def run(code, folder):
    path = folder / "notebook.py"
    path.write_text("import torch\n\ntorch.set_num_threads(1)\n" + code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # In a folder of its own; a warning would be the reader's too.
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", path.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_notebook_of_docs_library_runs(tmp_path):
    lines = run(read_library(), tmp_path).splitlines()
    assert lines[0] == "passed"
    assert lines[1] == "[1, 2, 97, 98, 149, 1024]"
    assert lines[2] == "capture: unsupported_op: no ONNX function for aten._linalg_svd.default"
    assert Path(lines[4]).name == "report.md"
    assert (tmp_path / "mlp.onnx").exists()
    assert (tmp_path / "mlp18.onnx").exists()
    assert (tmp_path / "out/mlp/model.onnx").exists()


@pytest.mark.slow
def test_the_notebook_of_the_readme_runs(tmp_path):
    words = run(read_readme(), tmp_path).split()
    assert words[:2] == ["passed", "None"]
    assert float(words[2]) < 1e-4
    assert (tmp_path / "linear.onnx").exists()


def test_each_line_of_the_table_stands_in_the_code_that_is_run():
    rows = re.findall(r"^\|(?:[^|]*)\| (`.*) \|$", LIBRARY.partition("All of it")[0], re.MULTILINE)
    code = read_library()
    lines = [line for row in rows for line in re.findall(r"`([^`]+)`", row) if not line.endswith("report")]
    assert len(lines) >= 5
    assert [line for line in lines if line not in code] == []


def test_code_that_fails_is_seen_to_fail(tmp_path):
    with pytest.raises(AssertionError, match="NameError"):
        run("exported.program", tmp_path)
