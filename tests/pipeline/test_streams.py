import subprocess
import sys

from pipeline.streams import escape

# Everybody speaks: a library in Python, one in C, a child, a log record, a warning, and we ourselves.
SPEAK = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from pipeline.streams import Diversion
early = logging.StreamHandler()
logging.getLogger("early").addHandler(early)
print("before")
with Diversion() as diversion:
    diversion.output.write("ours\\n")
    diversion.errors.write("our errors\\n")
    if len(sys.argv) > 2:
        print("early")
        late = subprocess.Popen(["sh", "-c", "read go; echo late >&2"], stdin=subprocess.PIPE)
    diversion.keep_in(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        print("printed")
        os.write(2, b"from C\\n")
        subprocess.run(["sh", "-c", "echo child; echo child err >&2"])
        logging.getLogger("lib").info("a record")
        logging.getLogger("early").warning("an old handler")
        warnings.warn("old-fashioned", FutureWarning)
        late.communicate(b"go\\n")
print("after")
"""


def speak(log, *words, code=SPEAK):
    return subprocess.run(
        [sys.executable, "-c", code, str(log), *words], capture_output=True, text=True, check=True, timeout=60
    )


def test_others_go_to_the_log_and_we_stay(tmp_path):
    log = tmp_path / "log"
    done = speak(log, "loud")
    assert done.stdout == "before\nours\nafter\n"
    assert done.stderr == "our errors\n"
    text = log.read_text()
    assert text.startswith("early\n")
    assert text.endswith("late\n")
    for words in ("printed", "from C", "child", "child err", "an old handler", "old-fashioned"):
        assert words in text
    assert "INFO lib: a record" in text


def test_a_log_that_nobody_wrote_to_is_removed(tmp_path):
    log = tmp_path / "log"
    done = speak(log)
    assert done.stdout == "before\nours\nafter\n"
    assert not log.exists()


def test_what_escapes_the_body_is_told_where_it_always_was(tmp_path):
    code = SPEAK.replace('print("before")', 'print("before", flush=True)').replace(
        'diversion.output.write("ours\\n")', 'raise SystemExit("bad end")'
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("before\n", "bad end\n", 1)


def test_a_stream_of_our_own_escapes_what_the_encoding_lacks(tmp_path):
    code = """
import sys
from pipeline.streams import duplicate
duplicate(sys.stdout).write("caf\\u00e9\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout == b"caf\\xe9\n"


def test_text_without_control_characters_is_left_alone():
    assert escape("caf\u00e9 [bold] 100 %") == "caf\u00e9 [bold] 100 %"
    assert escape("a\tb\x1b[0m\x85") == "a\\tb\\x1b[0m\\x85"
