import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from pipeline.event_log import append_event, read_events

# Writes events until it is killed, each half a page long.
WRITE = """
import sys
from pathlib import Path
from pipeline.event_log import append_event
number = 0
while True:
    append_event(Path(sys.argv[1]), "counted", number=number, words="x" * 2000)
    number += 1
    print(number, flush=True)
"""


def test_an_event_is_one_line_with_its_time_in_utc(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, "export_started", export="caf\u00e9\n")
    (line,) = path.read_bytes().splitlines()
    event = json.loads(line)
    assert (event["event"], event["export"]) == ("export_started", "caf\u00e9\n")
    assert datetime.fromisoformat(event["time"]).utcoffset().total_seconds() == 0


def test_an_event_is_added_in_one_write(tmp_path, monkeypatch):
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: sizes.append(len(line)) or write(file, line))
    append_event(tmp_path / "e", "x", words="y" * 100_000)
    assert sizes == [(tmp_path / "e").stat().st_size]


def test_no_event_is_lost_or_torn_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "events.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True) as process:
        told = 0
        for line in process.stdout:
            told = int(line)
            if told == 200:
                process.send_signal(signal.SIGKILL)
        process.wait(20)
    numbers = [event["number"] for event in read_events(path)]
    assert path.read_bytes().endswith(b"\n")
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= told >= 200


def test_half_a_line_and_rubbish_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, "first")
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n"words"\n{"event": 3}\n\n{"event": "torn", "ti')
    assert [event["event"] for event in read_events(path)] == ["first"]
    append_event(path, "next")
    assert [event["event"] for event in read_events(path)] == ["first", "next"]


def test_a_line_that_the_disk_had_no_room_for_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, "first")
    code = """
import resource, signal, sys
from pathlib import Path
from pipeline.event_log import append_event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
append_event(Path(sys.argv[1]), "torn", words="x" * 200)
"""
    whole = path.stat().st_size
    limit = whole + 50
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(limit)], capture_output=True, text=True, check=False
    )
    assert "OSError" in done.stderr
    assert path.stat().st_size == whole
    append_event(path, "next")
    assert [event["event"] for event in read_events(path)] == ["first", "next"]


def test_without_a_file_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_events(tmp_path / "none"))
