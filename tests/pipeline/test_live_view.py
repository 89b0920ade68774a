"""On real pseudo-terminals: a batch with stubs for workers, and what a person sees of it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import resize, run_on_terminal

from pipeline.live_view import shorten

STUB = str(Path(__file__).parents[1] / "support" / "stub_batch.py")
LONG = "whisper_encoder-a_very_long_setting_of_its_own-opset"
TABLE_HEADER = re.compile(r"^export +outcome")


@pytest.fixture
def environment():
    """Of a person at a terminal, whatever the tests run in."""
    dropped = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*dropped, "TTY_", "PYTHON"))}
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)}


def run(tmp_path, environment, *arguments, columns=80, lines=24, **settings):
    command = [sys.executable, STUB, *arguments]
    return run_on_terminal(command, columns=columns, lines=lines, cwd=tmp_path, env=environment, **settings)


def find_frame(done, *words):
    """The first frame in which all the words stand."""
    for frame in done.frames:
        if all(word in "\n".join(frame) for word in words):
            return frame
    raise AssertionError(f"never seen together: {words}\n" + "\n--\n".join("\n".join(f) for f in done.frames))


def test_running_exports_stand_below_what_has_happened_and_above_the_bar(tmp_path, environment):
    done = run(tmp_path, environment, "a", "b-fail", "c", "d", "--pause", "1.2")
    assert done.status == 1
    frame = find_frame(done, "[2/4] failed", "  d  ", "parity", "300 MiB")
    assert re.fullmatch(r"\[1/4\] passed     a in 1\.0 s \(new\)", frame[0])
    assert frame[1].startswith("[2/4] failed     b-fail capture: unsupported_op: no ONNX function for")
    running = [line for line in frame if line.startswith("  ")]
    assert re.fullmatch(r"  c  parity +0:0\d   300 MiB", running[0])
    assert re.fullmatch(r"  d  parity +0:0\d   300 MiB", running[1])
    assert re.search(r"^━+─+ 2/4, 1 failed  0:0\d  \S", frame[-1])


def test_at_the_end_the_view_is_gone_and_the_table_is_there(tmp_path, environment):
    done = run(tmp_path, environment, "a", "b-fail", "c", "--pause", "0.1")
    text = "\n".join(done.screen)
    assert "━" not in text
    assert "parity  " not in text
    assert [line.split()[:2] for line in done.screen if re.match(r"(a|b-fail|c) ", line)] == [
        ["a", "passed"],
        ["b-fail", "failed"],
        ["c", "passed"],
    ]
    assert re.search(r"^3 exports in \d\.\d s: 2 passed, 1 failed$", text, re.MULTILINE)


def test_a_retry_is_told_as_it_happens(tmp_path, environment):
    done = run(tmp_path, environment, "a", "b-lost", "--pause", "0.1")
    assert done.status == 0
    assert any("again      b-lost once more, alone, after parity: killed" in line for line in done.screen)


def test_a_batch_without_past_has_no_estimate_at_first(tmp_path, environment):
    done = run(tmp_path, environment, "a", "b", "c", "--workers", "1", "--pause", "0.6")
    assert find_frame(done, "0/3  0:0", "no estimate yet")
    assert find_frame(done, "1/3  0:0", " left")
    (tmp_path / "exports").rename(tmp_path / "gone")
    again = run(tmp_path, environment, "a", "b", "c", "--workers", "1", "--pause", "0.4")
    # Each took a second by its result.
    assert find_frame(again, "0/3  0:0", "a few s left")


def test_what_happened_is_broken_between_words(tmp_path, environment):
    done = run(tmp_path, environment, "a-fail", columns=40)
    start = next(index for index, line in enumerate(done.screen) if line.startswith("[1/1]"))
    assert done.screen[start : start + 2] == [
        "[1/1] failed     a-fail capture:",
        "unsupported_op: no ONNX function for",
    ]


@pytest.mark.parametrize("columns", [40, 20])
def test_long_names_fit_a_narrow_terminal_and_can_be_told_apart(tmp_path, environment, columns):
    names = [f"{LONG}{number}" for number in (18, 21)]
    done = run(tmp_path, environment, *names, "--pause", "1.2", columns=columns)
    assert done.status == 0
    frame = find_frame(done, "…", "21 ")
    rows = [line for line in frame if re.search(r"\d:\d\d", line) and "…" in line]
    assert len(rows) == 2
    assert [("18 " in row, "21 " in row) for row in rows] == [(True, False), (False, True)]
    # A line that fills the last column would have the terminal wrap, and the next frame would miss its place.
    assert all(len(line) < columns for line in frame)
    assert ("parity" in "\n".join(map("\n".join, done.frames))) == (columns == 40)


def test_no_more_rows_than_half_the_terminal_are_drawn(tmp_path, environment):
    names = [f"e{number}" for number in range(100)]
    done = run(tmp_path, environment, *names, "--workers", "100", "--pause", "0.6", lines=12)
    frame = find_frame(done, "0/100", "and 94 more")
    assert len(frame) == 6 + 2
    # The view never reached further up than the terminal's top, so nothing of it was left behind.
    assert "more" not in "\n".join(done.screen)


def test_a_terminal_that_is_made_smaller_and_larger_does_not_break_the_batch(tmp_path, environment):
    sizes = iter([(30, 10), (100, 40), (20, 5), (80, 24)] * 5)

    def change(terminal, pid, text):
        resize(terminal, *next(sizes, (80, 24)))
        os.kill(pid, signal.SIGWINCH)

    done = run(tmp_path, environment, "a", "b", LONG, "d", "--pause", "0.3", on_frame=change)
    assert done.status == 0
    assert "4 exports in" in "\n".join(done.screen)


def test_no_color_has_the_view_without_colours(tmp_path, environment):
    done = run(tmp_path, environment | {"NO_COLOR": "1"}, "a", "b-fail", "--pause", "0.3")
    assert find_frame(done, "0/2", "  a ")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", done.text)


@pytest.mark.parametrize("settings", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=["LC_ALL", "ascii"])
def test_without_utf_8_the_view_is_ascii(tmp_path, environment, settings):
    done = run(tmp_path, environment | settings, "a", f"{LONG}18", "b-fail", "--pause", "0.3", columns=40)
    assert done.status == 1
    frame = find_frame(done, "0/3", "..")
    assert re.match(r"-+ 0/3", frame[-1])
    if "PYTHONIOENCODING" in settings:
        assert done.text.isascii()
        assert "caf\\xe9" in done.text


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_lines(tmp_path, environment, term):
    done = run(tmp_path, environment | {"TERM": term}, "a", "b-fail", "--pause", "0.1")
    assert done.status == 1
    assert "\x1b" not in done.text
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d 2 exports: 2 to do, 2 at a time", done.screen[0])


def test_noise_of_others_does_not_reach_the_terminal(tmp_path, environment):
    done = run(tmp_path, environment, "a", "b", "c", "--pause", "0.1", "--noise", "Downloading: 0%\rDownloading: 9%\n")
    assert done.status == 0
    assert "Downloading" not in done.text
    (log,) = tmp_path.glob("runs/*/modelpress.log")
    assert log.read_text().count("Downloading: 9%") == 2


def test_after_a_failure_the_words_of_others_are_pointed_to(tmp_path, environment):
    done = run(tmp_path, environment, "a-fail", "--noise", "last words\n")
    (log,) = tmp_path.glob("runs/*/modelpress.log")
    assert f"what libraries printed meanwhile: {log.relative_to(tmp_path)}" in done.screen
    silent = run(tmp_path, environment, "b-fail")
    assert "printed meanwhile" not in silent.text


def test_a_terminal_that_goes_away_does_not_stop_the_batch(tmp_path, environment):
    ours, theirs = os.openpty()
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, STUB, "a", "b", "c-fail", "--pause", "0.5"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=errors,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        os.read(ours, 10)
        os.close(ours)
        assert process.wait(60) == 1
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == ["a", "b"]
    lines = (tmp_path / "errors").read_text().splitlines()
    assert [line.split(":")[0] for line in lines][:1] == ["c-fail"]
    assert "Traceback" not in "".join(lines)


@pytest.mark.parametrize("way", ["", ">&-", "| head -1 >/dev/null", ">/dev/full", "2>&-", ">/dev/full 2>&1"])
def test_whatever_standard_output_is_the_results_are_the_same(tmp_path, environment, way):
    command = f'{{ "$0" "$@"; echo $? >status; }} {way}'
    subprocess.run(
        ["bash", "-c", command, sys.executable, STUB, "a", "b-fail", "c-lost"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (tmp_path / "status").read_text() == "1\n"
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == ["a", "c-lost"]
    (summary,) = tmp_path.glob("runs/*/summary.json")
    outcomes = {export["id"]: export["outcome"] for export in json.loads(summary.read_text())["exports"]}
    assert outcomes == {"a": "passed", "b-fail": "failed", "c-lost": "passed"}


def test_a_pipe_gets_no_control_characters(tmp_path, environment):
    done = subprocess.run(
        [sys.executable, STUB, "a", "b-fail", "--pause", "0.1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_a_name_is_shortened_in_its_middle():
    assert shorten("abc", 3) == "abc"
    assert shorten("abcdefgh", 5) == "ab…gh"
    assert shorten("abcdefgh", 6, "..") == "ab..gh"
    assert shorten("abcdefgh", 2) == "ab"
