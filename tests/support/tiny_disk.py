"""A disk of a few pages, in a mount namespace of its own: nothing of it is left when the test ends."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["TinyDisk", "tiny_disk"]


@dataclass(frozen=True)
class TinyDisk:
    """What is mounted on a folder, for the processes of the namespace only.

    Args:
        folder: Where it is mounted.
        pid: Of the process that keeps the namespace.
    """

    folder: Path
    pid: int

    @property
    def view(self) -> Path:
        """The folder, as seen from outside the namespace."""
        return Path(f"/proc/{self.pid}/root{self.folder}")

    @property
    def prefix(self) -> list[str]:
        """The beginning of a command line whose process sees the disk, and stands on it."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", f"--wdns={self.folder}"]

    def mount(self, *arguments: str) -> None:
        subprocess.run([*self.prefix, "mount", *arguments], check=True, capture_output=True)

    def resize(self, size: str) -> None:
        self.mount("-o", f"remount,{size}", str(self.folder))


@contextmanager
def tiny_disk(folder: Path, options: str) -> Iterator[TinyDisk]:
    """Mount one; skips the test where that is not allowed.

    Args:
        folder: An empty directory.
        options: Of tmpfs(5): `size=64k`, `nr_inodes=40`.
    """
    script = f"mount -t tmpfs -o {options} tmpfs {folder} && echo mounted && exec cat"
    try:
        holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    with holder:
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != "mounted\n":
            pytest.skip(f"nothing can be mounted here: {said.strip()}")
        # The shell's own stand-in for itself.
        assert os.path.ismount(f"/proc/{holder.pid}/root{folder}")
        yield TinyDisk(folder, holder.pid)
