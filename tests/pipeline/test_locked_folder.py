"""What a killed process leaves behind is removed by the next one, and what a living one has is left alone."""

import signal
import subprocess
import sys

from pipeline.locked_folder import LockedFolder

KEEPS_ONE = """
import sys, time
from pathlib import Path
from pipeline.locked_folder import LockedFolder
folder = LockedFolder(Path(sys.argv[1]), "ours-")
(folder.path / "large").write_text("x")
print(folder.path, flush=True)
time.sleep(60)
"""


def test_a_folder_is_removed_with_what_is_in_it(tmp_path):
    folder = LockedFolder(tmp_path, "ours-")
    (folder.path / "deep").mkdir()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_folder_and_a_killed_one_loses_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KEEPS_ONE, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        its = other.stdout.readline().strip()
        first = LockedFolder(tmp_path, "ours-")
        assert {str(path) for path in tmp_path.iterdir()} == {its, str(first.path)}
        other.send_signal(signal.SIGKILL)
    second = LockedFolder(tmp_path, "ours-")
    assert set(tmp_path.iterdir()) == {first.path, second.path}


def test_a_folder_that_was_left_to_be_looked_at_stays_until_the_next(tmp_path):
    folder = LockedFolder(tmp_path, "ours-")
    folder.leave()
    assert folder.path.is_dir()
    later = LockedFolder(tmp_path, "ours-")
    assert set(tmp_path.iterdir()) == {later.path}


def test_what_has_no_lock_is_not_ours_to_remove(tmp_path):
    (tmp_path / "ours-photos").mkdir()
    LockedFolder(tmp_path, "ours-").remove()
    assert (tmp_path / "ours-photos").is_dir()
