import os

import pytest

from pipeline.worker_log import WorkerLog


def write_log(path, chunks, **limits):
    log = WorkerLog(path, **limits)
    with os.fdopen(os.dup(log.writer.fileno()), "wb", buffering=0) as worker:
        log.begin()
        for chunk in chunks:
            worker.write(chunk)
    log.end()
    return path.read_bytes()


def test_a_log_within_its_size_is_kept_byte_by_byte(tmp_path):
    chunks = [b"\xff\xfe no UTF-8\n", b"", b"x" * 100_000, b"\n", b"end"]
    assert write_log(tmp_path / "worker.log", chunks) == b"".join(chunks)


def test_of_a_long_log_the_beginning_and_the_end_are_kept_and_the_gap_is_told(tmp_path):
    text = b"".join(b"%09d\n" % number for number in range(200_000))
    log = write_log(tmp_path / "worker.log", [text], head_bytes=1000, tail_bytes=70_000)
    head, marker, tail = log.partition(b"\n[... ")
    assert head == text[:1000]
    assert marker
    count, _, tail = tail.partition(b" bytes left out ...]\n")
    assert len(tail) >= 70_000
    assert text.endswith(tail)
    assert len(head) + int(count.replace(b",", b"")) + len(tail) == len(text)
    # The end is kept in chunks of at most 64 KiB.
    assert len(log) < 1000 + 70_000 + 2**16 + 100


def test_a_log_that_cannot_be_written_does_not_stop_the_worker(tmp_path):
    log = WorkerLog(tmp_path / "missing" / "worker.log")
    with os.fdopen(os.dup(log.writer.fileno()), "wb", buffering=0) as worker:
        log.begin()
        for _ in range(100):
            worker.write(b"x" * 100_000)
    log.end()
    assert list(tmp_path.iterdir()) == []


def test_a_log_on_a_full_disk_does_not_stop_the_worker(tmp_path):
    log = WorkerLog(tmp_path / "worker.log")
    (tmp_path / "worker.log").symlink_to("/dev/full")
    with os.fdopen(os.dup(log.writer.fileno()), "wb", buffering=0) as worker:
        log.begin()
        for _ in range(100):
            worker.write(b"x" * 100_000)
    log.end()


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_log_ends_though_somebody_holds_on_to_its_pipe(tmp_path, is_begun, monkeypatch):
    monkeypatch.setattr("pipeline.worker_log._LAST_WORDS_S", 0.1)
    log = WorkerLog(tmp_path / "worker.log")
    held = os.dup(log.writer.fileno())
    if is_begun:
        log.begin()
    log.end()
    os.close(held)
