"""A batch is killed, or refused by the disk, at the k-th system call of a kind, for every k; then it is run again.

The exports are stubs, and strace plants the fault, as SQLite's tests do: k rises until the fault no longer happens.
After each, the invariants: exports/ holds whole, passed exports only; whoever exits with 0 has done all of it; a second
run without the fault ends well, does no more than is unfinished, and leaves no litter; each run has its summary, and in
it each export once.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from batch_server import BatchServer, Outcome
from struck_batches import NEW, OLD, read_exports, require_convergence

NO_EXCHANGE = "renameat2:error=EINVAL"
KILL = "signal=SIGKILL"


@dataclass(frozen=True)
class State:
    """What there is before the run with the fault.

    Args:
        ids: Of the exports that the run has to bring up to date.
        before: Those that were published before, in their older form.
        inject: Besides the fault.
        killed_at: Where a run before that one was killed, at a call of this name that left a file of this pattern; the
            fault then strikes the start after it.
    """

    ids: tuple[str, ...]
    before: tuple[str, ...] = ()
    inject: tuple[str, ...] = ()
    killed_at: tuple[str, str] | None = None


STATES = {
    "first run ever": State(("net",)),
    "another is there": State(("net", "other"), before=("other",)),
    "an older one is replaced without an exchange": State(("net",), before=("net",), inject=(NO_EXCHANGE,)),
    "after a kill between two renames": State(
        ("net", "other"), before=("net",), inject=(NO_EXCHANGE,), killed_at=("rename", ".exports.replaced/net")
    ),
    "after a kill in the summary": State(
        ("net", "other"), before=("net",), killed_at=("fsync", "runs/*/.summary.json.*")
    ),
}
CRASHES = [
    f"{call}:{KILL}" for call in ("rename", "renameat2", "fsync", "unlink", "unlinkat", "mkdir", "rmdir", "write")
]
ERRORS = [
    "rename:error=EIO",
    "renameat2:error=EIO",
    "fsync:error=EIO",
    "unlink:error=EIO",
    "unlinkat:error=EIO",
    "mkdir:error=ENOSPC",
    "write:error=ENOSPC",
]
# From the k-th call on the disk stays as it is.
LASTING = ["rename:error=EROFS", "fsync:error=EIO", "mkdir:error=ENOSPC", "write:error=ENOSPC"]


def find_obstacle() -> str:
    """Why faults cannot be planted here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as process:
        command = ["strace", "-e", "trace=none", "-o", "/dev/null", "-p", str(process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = tracer.stderr.readline()
        process.kill()
        tracer.communicate()
    return "" if "attached" in said else f"strace may not trace: {said.strip()}"


@pytest.fixture(scope="module")
def server() -> Iterator[BatchServer]:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    with BatchServer() as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: whoever is killed there leaves the same, and waits for no disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def prepare(server: BatchServer, root: Path, state: State) -> Path:
    """A folder in which the run with the fault is to be tried, over and over, each time in a copy."""
    folder = root / "before"
    folder.mkdir()
    if state.before:
        assert server.run(folder, *state.before, opset_version=OLD).code == 0
    return folder if state.killed_at is None else prepare_killed(server, folder, state, *state.killed_at)


def prepare_killed(server: BatchServer, before: Path, state: State, call: str, left: str) -> Path:
    folder = before.with_name("killed")
    for k in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        inject = (*state.inject, f"{call}:{KILL}:when={k}")
        assert server.run(folder, *state.ids, opset_version=NEW, inject=inject).code == -9
        if list(folder.glob(left)):
            return folder
    raise AssertionError


def strike(server: BatchServer, before: Path, state: State, fault: str) -> bool:
    """Try one fault and look at what it leaves; False if it did not happen."""
    folder = before.with_name("struck")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder, symlinks=True)
    # One expression for one system call: of two, strace takes the last.
    others = tuple(other for other in state.inject if other.partition(":")[0] != fault.partition(":")[0])
    struck = server.run(folder, *state.ids, opset_version=NEW, inject=(*others, fault))
    blows = [line for line in struck.trace if is_struck(line, fault)]
    if not blows:
        assert struck.code == 0
        return False
    require_clean_end(struck, fault)
    exports = read_exports(folder)
    if struck.code == 0:
        assert all(is_harmless(blow) for blow in blows)
        assert exports == dict.fromkeys(state.ids, NEW)
    again = server.run(folder, *state.ids, opset_version=NEW)
    assert (again.code, again.error) == (0, "")
    require_convergence(folder, state.ids, exports, is_kill=KILL in fault)
    return True


def is_struck(line: str, fault: str) -> bool:
    call = fault.partition(":")[0]
    return "killed by SIGKILL" in line if KILL in fault else line.startswith(f"{call}(") and "(INJECTED)" in line


def is_harmless(blow: str) -> bool:
    """Whether a call that failed is of the kind that a batch may go on without."""
    # What is written to the terminal, the directories that are there already, what is only removed or looked up.
    if blow.startswith("openat("):
        return "O_WRONLY" not in blow
    if blow.startswith("write("):
        return "</dev/null>" in blow
    return blow.startswith(("mkdir(", "unlink(", "unlinkat(", "renameat2("))


def require_clean_end(outcome: Outcome, fault: str) -> None:
    if KILL in fault:
        assert outcome.code == -9
        return
    assert outcome.code in (0, 5), outcome.error
    assert "Traceback" not in outcome.error
    assert len(outcome.error.splitlines()) <= 15
    if not fault.startswith("write:"):
        # Which also strikes the words.
        assert bool(outcome.error) == (outcome.code == 5), outcome.error


def sweep(
    server: BatchServer, root: Path, state: State, faults: list[str], *, lasts: bool = False, step: int = 1
) -> int:
    """Strike at each k, or each `step`-th, until the fault no longer happens; returns how often it did."""
    before = prepare(server, root, state)
    num_struck = 0
    for fault in faults:
        for k in itertools.count(1, step):
            if not strike(server, before, state, f"{fault}:when={k}{'+' if lasts else ''}"):
                break
            num_struck += 1
    return num_struck


def test_a_kill_at_a_rename_leaves_whole_exports_and_the_next_run_converges(server, root):
    state = STATES["an older one is replaced without an exchange"]
    assert sweep(server, root, state, [f"rename:{KILL}", f"renameat2:{KILL}"]) > 10


def test_a_full_disk_is_told_and_the_next_run_converges(server, root):
    assert sweep(server, root, STATES["another is there"], ["write:error=ENOSPC", "fsync:error=EIO"], step=4) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", STATES)
def test_a_kill_at_any_call_leaves_whole_exports_and_the_next_run_converges(server, root, name):
    # Recovery opens a file of every process there is.
    faults = CRASHES if STATES[name].killed_at else [*CRASHES, f"openat:{KILL}"]
    assert sweep(server, root, STATES[name], faults) > 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "faults"),
    [("another is there", [*ERRORS, "openat:error=EIO"]), ("an older one is replaced without an exchange", ERRORS)],
)
def test_an_error_at_any_call_is_told_and_the_next_run_converges(server, root, name, faults):
    assert sweep(server, root, STATES[name], faults) > 50


@pytest.mark.slow
def test_a_disk_that_stays_full_or_broken_is_told_and_the_next_run_converges(server, root):
    assert sweep(server, root, STATES["another is there"], LASTING, lasts=True) > 50
