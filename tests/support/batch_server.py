"""Runs batches of stub exports, each in a fork of one process that has imported everything.

As a program it reads requests, one line of JSON each, and answers with the process id of a fork that waits; on the
line "go" the fork runs the batch, and the answer is its wait status. In between strace can be attached to the fork, so
that it sees the batch and nothing of the interpreter's start.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["BatchServer", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a batch ended.

    Args:
        code: Its exit status; negative: the number of the signal that it died of.
        error: What it wrote to standard error.
        trace: What strace saw, line by line.
    """

    code: int
    error: str
    trace: tuple[str, ...] = ()

    @property
    def num_injected(self) -> int:
        """How many system calls strace tampered with."""
        return sum("(INJECTED)" in line for line in self.trace) or int("+++ killed by SIGKILL +++" in str(self.trace))


class BatchServer:
    """The process, from the test's side.

    Args:
        prefix: The beginning of its command line.
    """

    def __init__(self, *prefix: str) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        folder: Path,
        *ids: str,
        inject: tuple[str, ...] = (),
        uid: int | None = None,
        sizes: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> Outcome:
        """Run a batch in a folder.

        Args:
            folder: The working directory.
            ids: Of the exports.
            inject: strace's `-e inject=` expressions; without any it is not used.
            uid: Of the user who runs it; the process that has imported everything is root's.
            sizes: See `StubExecutor`.
            settings: Of `make_jobs`.
        """
        words = folder.parent / f"{folder.name}.words"
        request = {"folder": str(folder), "words": str(words), "ids": ids, "settings": settings}
        pid = int(self._ask(json.dumps({**request, "uid": uid, "sizes": sizes})))
        tracer = _attach(pid, inject, words.with_suffix(".trace")) if inject else None
        code = os.waitstatus_to_exitcode(int(self._ask("go")))
        trace: tuple[str, ...] = ()
        if tracer is not None:
            tracer.communicate()
            trace = tuple(words.with_suffix(".trace").read_text().splitlines())
        return Outcome(code, words.read_text(), trace)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        return self._process.stdout.readline()


def _attach(pid: int, inject: tuple[str, ...], log: Path) -> subprocess.Popen[str]:
    # Without --seccomp-bpf, with which nothing is injected.
    calls = ",".join(expression.partition(":")[0] for expression in inject)
    options = [part for expression in inject for part in ("-e", f"inject={expression}")]
    command = ["strace", "-y", "-o", str(log), "-p", str(pid), "-e", f"trace={calls}", *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert said.endswith("attached\n"), said
    return tracer


def _serve() -> None:
    from stub_executor import StubExecutor, make_jobs

    from pipeline.batch import run_batch

    # git is another process, and no part of what is tested.
    os.environ["PATH"] = ""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        # Whatever is loaded at the first use is loaded now.
        run_batch(make_jobs("net"), [], StubExecutor())
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.chdir(request["folder"])
            words = os.open(request["words"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(words, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.read(reader, 1)
            if request["uid"] is not None:
                os.setgroups([])
                os.setresgid(*[request["uid"]] * 3)
                os.setresuid(*[request["uid"]] * 3)
            jobs = make_jobs(*request["ids"], **request["settings"])
            os._exit(_run(run_batch, jobs, StubExecutor(request["sizes"])))
        os.close(reader)
        print(pid, flush=True)
        sys.stdin.readline()
        os.write(writer, b"x")
        os.close(writer)
        print(os.waitpid(pid, 0)[1], flush=True)


def _run(run_batch: Any, jobs: Any, executor: Any) -> int:
    from exporter.errors import ModelpressError

    # As pipeline.cli does it.
    try:
        return int(run_batch(jobs, [], executor))
    except ModelpressError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode())
        return int(error.exit_code)
    except Exception:  # noqa: BLE001  (a bug, which the test is to see)
        traceback.print_exc()
        return 3


if __name__ == "__main__":
    _serve()
