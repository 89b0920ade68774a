import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import FAILED, PASSED, UP_TO_DATE, Clock, make_display

from exporter.result import Rung
from pipeline.display import Display
from registry_sync.record import ExportRecord

SUPPORT = str(Path(__file__).parents[1] / "support")

# A batch's words, many more than a pipe holds, to a reader that is gone.
SPEAK = """
import sys
sys.path.insert(0, sys.argv[1])
from records import PASSED, make_batch, make_display
display = make_display("mlp-opset18", "b", "c")
display.begin()
display.show_started("mlp-opset18")
for _ in range(2000):
    display.say("a line")
display.refresh()
display.show_ended(PASSED)
display.show_table(make_batch(PASSED))
display.close()
display.complain("came to the end")
"""


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def read_lines(text: str) -> list[str]:
    """The lines about events, without their times, which have to be there."""
    lines = text.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines), lines
    return [line[20:] for line in lines]


def end(display: Display, record: ExportRecord) -> None:
    display._progress.end(record.id, record.outcome, display._clock())
    display.show_ended(record)


def test_without_a_terminal_each_event_is_one_plain_line_with_its_time(capsys):
    display = make_display("mlp-opset18", "vit", num_exports=4)
    display.begin()
    end(display, UP_TO_DATE)
    display.show_started("mlp-opset18")
    display.refresh()
    display.show_retried("mlp-opset18", FAILED.failure)
    for record in (PASSED, FAILED):
        end(display, record)
    display.close()
    captured = capsys.readouterr()
    assert read_lines(captured.out) == [
        "4 exports: 2 to do, 2 at a time",
        "[1/4] up to date bert",
        "      started    mlp-opset18",
        "      again      mlp-opset18 once more, alone, after capture: crashed: the worker died of [bold]SIGSEGV",
        "[2/4] passed     mlp-opset18 in 12.3 s (opset_version 20 -> 18)",
        "[3/4] failed     vit capture: crashed: the worker died of [bold]SIGSEGV",
    ]
    assert captured.err == ""


def test_counts_stand_below_each_other(capsys):
    display = make_display(num_exports=100)
    display.begin()
    end(display, UP_TO_DATE)
    assert read_lines(capsys.readouterr().out) == ["100 exports: all up to date", "[  1/100] up to date bert"]


def test_a_long_silence_is_broken_by_a_line_on_what_is_at_work(capsys):
    clock = Clock()
    names = [f"export{number}" for number in range(9)]
    display = make_display(*names, clock=clock)
    progress = display._progress
    display.begin()
    for name in names[:7]:
        progress.start(name, 0.0)
    progress.running["export0"].step = "parity"
    progress.see_memory({"export0": 812 << 20})
    clock.now_s = 299.0
    display.refresh()
    capsys.readouterr()
    clock.now_s = 300.0
    display.refresh()
    display.refresh()
    (line,) = read_lines(capsys.readouterr().out)
    assert line == (
        "[0/9] at work    export0 (parity, 5:00, 812 MiB), export1 (starting, 5:00), export2 (starting, 5:00), "
        "export3 (starting, 5:00), export4 (starting, 5:00), and 2 more; 2 waiting; 1 to 5 min left"
    )
    clock.now_s = 600.0
    display.refresh()
    assert len(read_lines(capsys.readouterr().out)) == 1


def test_what_would_move_the_cursor_is_shown_as_an_escape(capsys):
    failure = replace(FAILED.failure, cause="\x1b[2J\rgone \udcff caf\u00e9")
    end(make_display("vit"), replace(FAILED, failure=failure))
    assert read_lines(capsys.readouterr().out) == [
        "[1/1] failed     vit capture: crashed: \\x1b[2J\\rgone \\udcff caf\u00e9"
    ]


def test_colours_where_they_are_asked_for_do_not_make_a_terminal_of_a_pipe(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = make_display("vit")
    display.begin()
    end(display, FAILED)
    display.close()
    out = capsys.readouterr().out
    assert "\x1b[1;31m" in out
    assert len(out.splitlines()) == 2
    assert not re.search(r"\x1b\[[0-9;?]*[^0-9;?m]", out)


def test_a_long_line_is_not_folded(capsys):
    make_display().say("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_words_of_several_lines_stay_several_lines(capsys):
    make_display().say("MLflow: look\n  there")
    assert capsys.readouterr().out == "MLflow: look\n  there\n"


def test_complaints_go_to_standard_error_unfolded(capsys):
    make_display().complain("[red]word " * 100)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[red]word " * 100 + "\n")


def speak(**streams) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SPEAK, SUPPORT], stderr=subprocess.PIPE, text=True, **streams)


def test_a_reader_that_went_away_does_not_stop_the_batch():
    reading, writing = os.pipe()
    os.close(reading)
    with speak(stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=60)
    assert err.startswith("came to the end\n")


def test_a_reader_that_goes_away_in_mid_sentence_does_not_stop_the_batch():
    with speak(stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().endswith("3 exports: 3 to do, 2 at a time\n")
        process.stdout.close()
        err = process.stderr.read()
        process.wait(60)
    assert err.startswith("came to the end\n")


def test_a_standard_output_closed_from_the_start_does_not_stop_the_batch():
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" "$2" >&-', sys.executable, SPEAK, SUPPORT],
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
    display = make_display()
    display.show_ended(replace(PASSED, rescued_by=[Rung.math_attention, Rung.no_optimize]))
    assert f"({PASSED.reason}; rescued by math_attention, no_optimize)" in capsys.readouterr().out
