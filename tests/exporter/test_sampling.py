"""What comes and goes within a body is seen, and nothing is left behind."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from exporter import sampling
from exporter.sampling import AnonymousPeak

MIB = 2**20


def fill(mebibytes):
    """Resident at once: every page is written to."""
    return np.ones(mebibytes * MIB, np.uint8)


def count_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_memory_that_is_freed_before_the_end_is_seen():
    with AnonymousPeak() as watched:
        block = fill(64)
        time.sleep(10 * sampling.INTERVAL_S)
        del block
    assert watched.peak_bytes - watched.start_bytes > 60 * MIB


def test_memory_that_stays_is_seen_however_short_the_body():
    with AnonymousPeak() as watched:
        block = fill(64)
    assert watched.peak_bytes - watched.start_bytes > 60 * MIB, block.size


def test_memory_from_before_is_part_of_the_start():
    block = fill(64)
    with AnonymousPeak() as watched:
        pass
    assert watched.peak_bytes - watched.start_bytes < MIB, block.size


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_the_thread_and_its_file_end_with_the_body(error):
    threads, files = threading.active_count(), count_files()
    try:
        with AnonymousPeak():
            assert threading.active_count() == threads + 1
            if error is not None:
                raise error
    except (ValueError, SystemExit):
        pass
    assert threading.active_count() == threads
    assert count_files() == files


def test_where_proc_cannot_be_read_nothing_is_known(monkeypatch):
    def refuse(path, flags):
        raise PermissionError(path)

    monkeypatch.setattr("exporter.memory.os.open", refuse)
    with AnonymousPeak() as watched:
        pass
    assert (watched.start_bytes, watched.peak_bytes) == (None, None)


def test_where_no_thread_can_be_started_only_the_start_is_known(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    files = count_files()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with AnonymousPeak() as watched:
        pass
    assert watched.start_bytes > 0
    assert watched.peak_bytes is None
    assert count_files() == files
