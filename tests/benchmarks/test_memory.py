"""The memory benchmark on an input so small that it only shows that all of it works."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_prints_a_table_and_draws_both_figures(tmp_path):
    done = run(tmp_path / "figures", "--input", "1x1x4x4x4", "--ways", "eager")
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()
    assert row.startswith("| 1x1x4x4x4 | eager | ")
    assert row.count("|") == header.count("|")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "memory-1x1x4x4x4.png",
        "memory-1x1x4x4x4.svg",
    ]


def test_a_way_that_fails_says_why_in_its_row(tmp_path):
    done = run(tmp_path, "--input", "1x2x4x4x4", "--ways", "eager")
    assert done.returncode == 0, done.stderr
    assert "RuntimeError: " in done.stdout
    assert "to have 1 channels, but got 2 channels" in done.stdout


def test_a_wrong_command_line_says_how_it_is_used():
    done = run()
    assert done.returncode == 2
    assert "OUT_DIR" in done.stderr
