import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.errors import ExitCode, LockedError, StorageError
from exporter.lock import lock_output

HOLD = """
import sys
from pathlib import Path
from exporter.lock import lock_output
with lock_output(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

# As on a full disk: every write to a file fails.
HOLD_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from exporter.errors import StorageError
from exporter.lock import lock_output
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    with lock_output(Path(sys.argv[1])):
        print("held")
except StorageError as error:
    print("StorageError", error)
"""


@contextmanager
def holder(exports: Path):
    """Another process that holds the lock until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(exports)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_directory_is_made_and_holds_nothing_of_the_lock(tmp_path):
    with lock_output(tmp_path / "a" / "exports"):
        assert list((tmp_path / "a" / "exports").iterdir()) == []


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    exports = tmp_path / "exports"
    with holder(exports) as process:
        with pytest.raises(LockedError) as caught, lock_output(exports):
            pass
        assert str(caught.value) == (
            f"{exports}: in use by another run (process {process.pid} on {socket.gethostname()}); wait for it to end"
        )
        assert caught.value.exit_code is ExitCode.LOCKED
        # Who was turned away leaves the holder's name where it is.
        with pytest.raises(LockedError, match=f"process {process.pid} "), lock_output(exports):
            pass


def test_a_second_holder_is_refused_even_where_the_first_has_no_readable_name(tmp_path):
    exports = tmp_path / "exports"
    with holder(exports):
        (tmp_path / ".exports.lock.json").write_text("{")
        with pytest.raises(LockedError) as caught, lock_output(exports):
            pass
        assert str(caught.value) == f"{exports}: in use by another run; wait for it to end"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_holder_is_free(tmp_path, number):
    exports = tmp_path / "exports"
    with holder(exports) as process:
        process.send_signal(number)
        assert process.wait(10) == -number
        with lock_output(exports):
            assert f'"pid": {os.getpid()}' in (tmp_path / ".exports.lock.json").read_text()


def test_the_lock_is_free_after_an_error_in_its_body(tmp_path):
    with pytest.raises(KeyError), lock_output(tmp_path / "exports"):
        raise KeyError
    assert not (tmp_path / ".exports.lock.json").exists()
    with holder(tmp_path / "exports") as process:
        assert process.poll() is None


def test_an_os_error_of_the_body_is_not_taken_for_one_of_the_lock(tmp_path):
    with pytest.raises(FileNotFoundError), lock_output(tmp_path / "exports"):
        (tmp_path / "nothing").read_text()


def test_two_directories_have_two_locks(tmp_path):
    with holder(tmp_path / "one"), lock_output(tmp_path / "two"):
        assert (tmp_path / "two").is_dir()


def test_a_file_in_place_of_the_directory_is_a_storage_error(tmp_path):
    (tmp_path / "exports").touch()
    with pytest.raises(StorageError) as caught, lock_output(tmp_path / "exports"):
        pass
    assert str(caught.value) == f"{tmp_path / 'exports'}: File exists; choose another with output.exports=DIR"
    assert caught.value.exit_code is ExitCode.STORAGE


@pytest.mark.parametrize("path", ["/proc/nope", "/proc/nope/exports"])
def test_a_directory_that_cannot_be_made_is_a_storage_error(path):
    with (
        pytest.raises(StorageError, match=r"^/proc/nope: .+; choose another with output.exports=DIR$"),
        lock_output(Path(path)),
    ):
        pass


def test_a_full_disk_is_a_storage_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HOLD_ON_A_FULL_DISK, str(tmp_path / "exports")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("StorageError ")


@pytest.mark.parametrize("left", ["", "{", "[]", '{"pid": "x", "host": 1}', '{"pid": 1}', "\xff\xfe"])
def test_what_an_earlier_run_left_of_its_name_does_not_matter(tmp_path, left):
    exports = tmp_path / "exports"
    (tmp_path / ".exports.lock.json").write_bytes(left.encode("latin-1"))
    with lock_output(exports):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".exports.lock.json").read_text()
    assert not (tmp_path / ".exports.lock.json").exists()


def test_a_dead_process_is_not_named_as_the_holder(tmp_path):
    exports = tmp_path / "exports"
    with subprocess.Popen(["true"]) as gone:
        pass
    with holder(exports):
        (tmp_path / ".exports.lock.json").write_text(f'{{"pid": {gone.pid}, "host": "{socket.gethostname()}"}}')
        with pytest.raises(LockedError) as caught, lock_output(exports):
            pass
    assert str(caught.value) == f"{exports}: in use by another run; wait for it to end"


@pytest.mark.parametrize("name", [".exports.lock", ".exports.lock.json"])
def test_a_directory_in_place_of_the_lock_is_a_storage_error(tmp_path, name):
    (tmp_path / name).mkdir()
    expected = rf"{name}: .+; choose another with output\.exports=DIR$"
    with pytest.raises(StorageError, match=expected), lock_output(tmp_path / "exports"):
        pass
    assert (tmp_path / name).is_dir()
