"""A control group with a limit of memory, where this machine allows one: Linux has two versions of them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[list[str]]:
    """The beginning of a command line whose process, with all that it starts, may use so much memory and no more.

    Skips the test where groups cannot be made: for want of permission, or of the controller.
    """
    is_second = (ROOT / "cgroup.controllers").exists()
    group = (ROOT if is_second else ROOT / "memory") / f"modelpress-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (group / ("memory.max" if is_second else "memory.limit_in_bytes")).write_text(str(limit_bytes))
        except OSError as error:
            pytest.skip(f"control groups do not limit memory here: {error}")
        # Swap would only make it slow to run out.
        for name, value in (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(limit_bytes))):
            with suppress(OSError):
                (group / name).write_text(value)
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        # The kernel lets go of the last process a little after its end.
        deadline = time.monotonic() + 5
        while True:
            try:
                group.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
