"""A real Postgres server on this machine's loopback, in a folder of its own, where its binaries are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow_server import find_port

__all__ = ["PASSWORD", "Postgres", "find_binaries", "run_postgres"]

PASSWORD = "hunter2secret"


@dataclass(frozen=True)
class Postgres:
    port: int
    folder: Path
    binaries: Path

    def make_database(self, name: str) -> str:
        """A new and empty one; returns its URI, with the password."""
        _run(self.binaries / "createdb", "-h", str(self.folder), "-p", str(self.port), "-U", "me", name)
        return f"postgresql://me:{PASSWORD}@127.0.0.1:{self.port}/{name}"


def find_binaries() -> Path | None:
    """Debian's folder of them, of the newest version; None: not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def run_postgres(binaries: Path) -> Iterator[Postgres]:
    # Not under pytest's own folder: root alone may enter that, and Postgres refuses to run as root. Nor as long as
    # that one: a socket's path has a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    port = find_port()
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data = str(folder / "data")
        access = ["--auth-host=scram-sha-256", "--auth-local=trust", f"--pwfile={folder}/password"]
        _run(binaries / "initdb", "-D", data, "-U", "me", *access, "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        _run(binaries / "pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield Postgres(port, folder, binaries)
        finally:
            _run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: Path, *arguments: str) -> None:
    # Postgres refuses to run as root; the package brings a user of this name.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    done = subprocess.run(
        [program, *arguments],
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        # Not a pipe, which the server that is started would keep open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{program} ended with {done.returncode}"
