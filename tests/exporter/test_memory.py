"""What the kernel says about this process, at the scale of megabytes."""

import mmap
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter import memory

MIB = 2**20


def fill(mebibytes):
    """Resident at once: every page is written to."""
    return np.ones(mebibytes * MIB, np.uint8)


def test_resident_memory_grows_by_what_is_written():
    before = memory.read_rss_bytes()
    block = fill(64)
    grown = memory.read_rss_bytes() - before
    assert 60 * MIB < grown < 80 * MIB, block.size


def test_the_peak_keeps_what_was_freed_until_it_is_reset():
    if not memory.reset_peak_rss():
        pytest.skip("this kernel does not let the high-water mark be reset")
    start = memory.read_peak_rss_bytes()
    fill(64)
    peak = memory.read_peak_rss_bytes()
    assert peak - start > 60 * MIB
    assert memory.reset_peak_rss()
    assert memory.read_peak_rss_bytes() < peak - 50 * MIB


def test_the_peak_is_never_below_what_is_resident():
    memory.reset_peak_rss()
    resident = memory.read_rss_bytes()
    assert memory.read_peak_rss_bytes() >= resident - MIB


def test_usage_is_what_the_status_file_says():
    usage = memory.read_usage()
    status = Path("/proc/self/status").read_text()
    resident, anonymous = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) * 1024 for key in ("VmRSS", "RssAnon"))
    assert abs(usage.rss_bytes - resident) < MIB
    assert abs(usage.anon_bytes - anonymous) < MIB


def test_a_mapped_file_is_resident_and_not_anonymous(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 32 * MIB)
    before = memory.read_usage()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[offset] for offset in range(0, len(mapped), 4096)) > 0
        after = memory.read_usage()
    assert after.rss_bytes - before.rss_bytes > 30 * MIB
    assert after.anon_bytes - before.anon_bytes < 4 * MIB


def test_another_process_is_read_until_it_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    reader = memory.UsageReader(process.pid)
    assert reader.read().rss_bytes > 0
    process.stdin.close()
    process.wait()
    assert reader.read() is None
    reader.close()
