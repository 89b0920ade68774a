import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.errors import FailureKind
from exporter.result import Failure, Rung, Step
from pipeline.display import Display
from pipeline.executor import Pulse, Task
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, ExportRecord, Outcome

PASSED = ExportRecord(
    id="mlp-opset18",
    model="mlp",
    outcome=Outcome.passed,
    directory="exports/mlp-opset18",
    reason="opset_version 20 -> 18",
    duration_s=12.34,
    opset_version=18,
    precision="fp32",
    max_abs_diff=1.5e-7,
    export_peak_bytes=150 * 2**20,
    size_bytes=3_000 * 2**10,
    num_nodes=42,
    latency_s=0.00123,
)
UP_TO_DATE = ExportRecord(
    id="bert", model="bert", outcome=Outcome.up_to_date, directory="exports/bert", opset_version=20, precision="fp32"
)
FAILED = ExportRecord(
    id="vit",
    model="vit",
    outcome=Outcome.failed,
    failure=Failure(step=Step.capture, kind=FailureKind.crashed, cause="the worker died of [bold]SIGSEGV", hint="h"),
    directory="runs/1/exports/vit",
    reason="new",
    opset_version=20,
    precision="fp32",
)
CANCELLED = ExportRecord(
    id="clip", model="clip", outcome=Outcome.cancelled, directory="d", opset_version=20, precision="fp32"
)

# A batch's words, many more than a pipe holds, to a reader that is gone.
SPEAK = """
import sys
from pathlib import Path
from pipeline.display import Display
from pipeline.executor import Pulse, Task
sys.path.insert(0, sys.argv[1])
from test_display import PASSED, make_batch
display = Display(3)
display.begin()
display.show_started(Task("mlp-opset18", Path("d")))
for _ in range(2000):
    display.say("a line")
display.refresh(Pulse({}))
display.show_ended(PASSED)
display.show_table(make_batch(PASSED))
display.close()
display.complain("came to the end")
"""


def make_batch(*exports: ExportRecord) -> BatchRecord:
    return BatchRecord(
        run_id="1",
        name="n",
        release=None,
        command=[],
        started_at="",
        ended_at="",
        duration_s=1.0,
        exit_code=0,
        git_commit="",
        exports=list(exports),
        tracking=TrackingOptions(),
    )


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_terminal_each_export_is_one_plain_line(capsys):
    display = Display(4)
    display.begin()
    display.show_started(Task("mlp-opset18", Path("d")))
    display.refresh(Pulse({}))
    for record in (UP_TO_DATE, PASSED, FAILED):
        display.show_ended(record)
    display.close()
    captured = capsys.readouterr()
    assert [line.rstrip() for line in captured.out.splitlines()] == [
        "[1/4] up to date bert",
        "[2/4] passed     mlp-opset18 in 12.3 s (opset_version 20 -> 18)",
        "[3/4] failed     vit capture: crashed: the worker died of [bold]SIGSEGV",
    ]
    assert captured.err == ""


def test_a_long_line_is_not_folded(capsys):
    Display(1).say("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_complaints_go_to_standard_error_unfolded(capsys):
    Display(1).complain("[red]word " * 100)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[red]word " * 100 + "\n")


def test_the_table_has_a_plain_row_with_the_numbers_of_each_export(capsys):
    Display(4).show_table(make_batch(PASSED, UP_TO_DATE, FAILED, CANCELLED))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[0] == [
        "export",
        "outcome",
        "opset",
        "max_abs_diff",
        "peak",
        "MiB",
        "size",
        "KiB",
        "nodes",
        "ORT",
        "ms",
        "time",
        "s",
    ]
    assert rows[1] == ["mlp-opset18", "passed", "18", "1.5e-07", "150", "3,000", "42", "1.23", "12.3"]
    assert rows[2] == ["bert", "up", "to", "date", "20"]
    assert rows[3][:3] == ["vit", "failed", "20"]
    assert rows[4][:3] == ["clip", "cancelled", "20"]


def test_a_name_of_60_characters_stays_on_one_line_of_the_table(capsys):
    name = "m" * 60
    record = ExportRecord(
        id=name, model="m", outcome=Outcome.up_to_date, directory="d", opset_version=20, precision="fp32"
    )
    Display(1).show_table(make_batch(record))
    assert name in capsys.readouterr().out


def speak(**streams) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SPEAK, str(Path(__file__).parent)], stderr=subprocess.PIPE, text=True, **streams
    )


def test_a_reader_that_went_away_does_not_stop_the_batch():
    reading, writing = os.pipe()
    os.close(reading)
    with speak(stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=60)
    assert err.startswith("came to the end\n")


def test_a_reader_that_goes_away_in_mid_sentence_does_not_stop_the_batch():
    with speak(stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        err = process.stderr.read()
        process.wait(60)
    assert err.startswith("came to the end\n")


def test_a_standard_output_closed_from_the_start_does_not_stop_the_batch():
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" "$2" >&-', sys.executable, SPEAK, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == "came to the end\n"
    assert done.returncode == 0


def test_a_full_disk_behind_standard_output_does_not_stop_the_batch():
    with Path("/dev/full").open("w") as full, speak(stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert err.startswith("came to the end\n")


def test_what_an_export_needed_is_on_its_line(capsys):
    display = Display(1)
    display.show_ended(replace(PASSED, rescued_by=[Rung.math_attention, Rung.no_optimize]))
    assert f"({PASSED.reason}; rescued by math_attention, no_optimize)" in capsys.readouterr().out
