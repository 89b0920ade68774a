"""Disks without room or inodes, read-only or somebody else's: real ones, small, in a mount namespace of their own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import BatchServer
from struck_batches import NEW, OLD, read_exports, require_convergence
from tiny_disk import TinyDisk, tiny_disk

ROOMY = "size=10m,nr_inodes=1000"
NOBODY = 65534
IDS = ("net", "big")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[TinyDisk]:
    (tmp_path / "disk").mkdir()
    with tiny_disk(tmp_path / "disk", ROOMY) as disk:
        yield disk


@pytest.fixture
def server(disk: TinyDisk) -> Iterator[BatchServer]:
    with BatchServer(*disk.prefix) as server:
        yield server


@pytest.fixture(scope="module")
def fork_of_root() -> Iterator[BatchServer]:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with BatchServer() as server:
        yield server


def fill(server: BatchServer, disk: TinyDisk, size: str) -> tuple[int, list[str]]:
    """Run out of a size while one export is replaced and another is new; returns the code and the words."""
    for path in disk.view.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert server.run(disk.folder, "net", opset_version=OLD).code == 0
    try:
        disk.resize(size)
    except subprocess.CalledProcessError:
        # That much is taken already.
        return -1, []
    full = server.run(disk.folder, *IDS, opset_version=NEW, sizes={"big": 40_000})
    exports = read_exports(disk.view)
    disk.resize(ROOMY)
    again = server.run(disk.folder, *IDS, opset_version=NEW)
    assert (again.code, again.error) == (0, "")
    require_convergence(disk.view, IDS, exports, is_kill=False)
    assert "Traceback" not in full.error
    assert (full.code, bool(full.error)) in ((0, False), (5, True))
    if full.code == 0:
        assert exports == dict.fromkeys(IDS, NEW)
    return full.code, full.error.splitlines()


def sweep(server: BatchServer, disk: TinyDisk, sizes: list[str]) -> tuple[list[int], list[list[str]]]:
    tried = [result for size in sizes if (result := fill(server, disk, size))[0] >= 0]
    return [code for code, _ in tried], [words for _, words in tried]


def test_a_disk_without_room_is_told_and_the_next_run_converges(server, disk):
    codes, words = sweep(server, disk, [f"size={kib}k" for kib in range(76, 300, 28)])
    assert codes[0] == 5
    assert codes[-1] == 0
    assert any("free some space, then run the same command again" in line for lines in words for line in lines)


@pytest.mark.slow
def test_a_disk_of_any_size_is_used_in_order(server, disk):
    codes, words = sweep(server, disk, [f"size={kib}k" for kib in range(60, 300, 7)])
    assert sorted(codes, reverse=True) == codes
    told = [line for lines in words for line in lines]
    # The worker of one ran out of room, and the other export went on.
    assert any("big: start: storage_error" in line for line in told)
    assert any("the record of this run is left to the next one" in line for line in told)
    assert all(len(lines) <= 2 for lines in words)


@pytest.mark.slow
def test_a_disk_of_any_number_of_inodes_is_used_in_order(server, disk):
    codes, words = sweep(server, disk, [f"size=10m,nr_inodes={number}" for number in range(18, 48)])
    assert sorted(codes, reverse=True) == codes
    assert {5, 0} == set(codes)
    assert all(len(lines) <= 2 for lines in words)


@pytest.mark.parametrize("what", ["", "exports", "runs", "metrics"])
def test_what_is_read_only_is_told_before_anything_starts(server, disk, what):
    assert server.run(disk.folder, "net", opset_version=OLD).code == 0
    folder = str(disk.folder / what)
    if what:
        disk.mount("--bind", folder, folder)
    disk.mount("-o", "remount,ro,bind", folder)
    before = sorted(disk.view.rglob("*"))
    outcome = server.run(disk.folder, "net", opset_version=NEW)
    assert outcome.code == 5
    (line,) = outcome.error.splitlines()
    assert f"{what}: not writable; make it so, or choose another with output.{what}=DIR" in line or what == ""
    assert read_exports(disk.view) == {"net": OLD}
    assert sorted(path for path in disk.view.rglob("*") if path.name != ".exports.lock.json") == before


def test_two_mounts_of_one_disk_are_refused_before_anything_starts(server, disk):
    for name in ("runs", "elsewhere"):
        (disk.view / name).mkdir()
    disk.mount("--bind", str(disk.folder / "elsewhere"), str(disk.folder / "runs"))
    outcome = server.run(disk.folder, "net")
    assert outcome.code == 5
    assert "are on different file systems" in outcome.error
    assert list((disk.view / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("closed", "message"),
    [
        (".", ".exports.lock.json: Permission denied; choose another with output.exports=DIR"),
        (".exports.lock", ".exports.lock: Permission denied; choose another with output.exports=DIR"),
        ("exports", "exports: not writable; make it so, or choose another with output.exports=DIR"),
        ("exports/net", "exports/net: not writable; make it so, or choose another with output.exports=DIR"),
        ("runs", "runs: not writable; make it so, or choose another with output.runs=DIR"),
        ("metrics", "metrics: not writable; make it so, or choose another with output.metrics=DIR"),
    ],
)
def test_what_is_somebody_elses_is_told_before_anything_starts(fork_of_root, closed, message):
    # Not under tmp_path, which is root's alone.
    folder = Path("/tmp") / f"modelpress-test-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        assert fork_of_root.run(folder, "net", opset_version=OLD).code == 0
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        assert fork_of_root.run(folder, "net", uid=NOBODY, opset_version=OLD).code == 0
        os.chown(folder / closed, 0, 0)
        before = sorted(folder.rglob("*"))
        outcome = fork_of_root.run(folder, "net", uid=NOBODY, opset_version=NEW)
        assert (outcome.code, outcome.error.strip().removeprefix(f"{folder}/")) == (5, message)
        assert sorted(folder.rglob("*")) == before
    finally:
        shutil.rmtree(folder)
        folder.with_name(f"{folder.name}.words").unlink(missing_ok=True)
