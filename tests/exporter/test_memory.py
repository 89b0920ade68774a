"""What the kernel says about this process, at the scale of megabytes."""

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
