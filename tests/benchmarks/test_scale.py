"""The scale benchmark on batches so small that they only show that all of it works."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_prints_a_row_for_each_way_and_size_and_draws_the_figure(tmp_path):
    (tmp_path / "batches").mkdir()
    done = run(tmp_path / "out", "--sizes", 2, 12, "--folder", tmp_path / "batches")
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {way}", size] for size in ("2", "12") for way in ("processes", "in_process", "up_to_date")
    ]
    assert {row.count("|") for row in rows} == {header.count("|")}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scale.md", "scale.png", "scale.svg"]
    assert (tmp_path / "out" / "scale.md").read_text() == done.stdout
    assert list((tmp_path / "batches").iterdir()) == []


def test_a_wrong_command_line_says_how_it_is_used():
    done = run()
    assert done.returncode == 2
    assert "OUT_DIR" in done.stderr
