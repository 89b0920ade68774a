"""Makes the process that imports it one to fork workers from: all is loaded, and one tiny export is done.

A fork server imports this module by name. A fork is safe only from a process without a live thread pool: no operator
may have run on more than one thread, ONNX Runtime must hold no session, and CUDA must not have started.

Nothing is raised here, since a fork server would not tell; `exporter.readiness` has what became of it.
"""

import gc
import importlib
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.failures import one_line
from exporter.readiness import PRELOAD_VARIABLE, Readiness, record_readiness

__all__ = ["make_ready"]

_MAX_OUTPUT_BYTES = 64 * 1024
# How long the parent may take to compose its jobs.
_NAMES_S = 300.0
_LOOK_S = 0.5
# A thread that has ended is listed for a moment longer.
_SETTLING_S = 0.05


def make_ready(preloads: Iterable[str]) -> Readiness:
    """Import what an export needs, then what the models need, and do a tiny export; raises nothing.

    Args:
        preloads: Dotted names in installed packages: modules, or classes and functions in them.
    """
    # Ctrl-C is for the parent, which ends us; the fork server itself sees to that only after its imports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ONNX Runtime starts a thread of its own at import otherwise, which sends what it sees of the models.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # Imports make few cycles and half a million objects, to look at which again and again takes a quarter of the time.
    gc.disable()
    with _kept_output() as output:
        readiness = _warm_up(preloads)
    gc.collect()
    # Out of the garbage collector's sight, so that a fork does not copy the pages of what is loaded.
    gc.freeze()
    gc.enable()
    return replace(readiness, num_threads=_count_threads(), output=output[0])


def _warm_up(preloads: Iterable[str]) -> Readiness:
    try:
        _import_exporter()
    except BaseException as error:  # noqa: BLE001  (a library may call sys.exit, too)
        traceback.print_exc()
        return Readiness(problem=f"importing what an export needs: {_describe(error)}")
    unsafe, problems = [], []
    for name in preloads:
        is_safe, problem = _preload(name)
        if not is_safe:
            unsafe.append(name)
        if problem:
            problems.append(f"{name}: {problem}")
    readiness = Readiness(is_imported=True, unsafe_preloads=unsafe, preload_problems=problems)
    # So that what the tiny export leaves is found without a look at all modules.
    gc.freeze()
    # Last: the registry of ONNX functions, which it builds, depends on the operators that packages bring.
    logging.disable(logging.WARNING)
    try:
        importlib.import_module("exporter.tiny_export").export_tiny_model()
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return replace(readiness, problem=f"the tiny export: {_describe(error)}")
    finally:
        logging.disable(logging.NOTSET)
    return replace(readiness, is_warm=True)


def _import_exporter() -> None:
    import torch

    # Before any operator runs; a worker raises it after the fork.
    torch.set_num_threads(1)
    # For their imports: onnx, onnxscript and ONNX Runtime, and what a worker calls.
    importlib.import_module("exporter.sequence")
    importlib.import_module("exporter.worker")
    # Compiled here, a page takes a worker 2 ms; else it takes 60.
    importlib.import_module("exporter.pages.report_page")
    importlib.import_module("exporter.pages.page").compile_pages()
    # Read and packed once for all workers.
    with suppress(LookupError):
        importlib.import_module("exporter.pages.graph").read_viewer()
    # torch.fx makes a progress bar, unseen, for each graph that it interprets; the first starts a thread.
    with suppress(ImportError):
        tqdm: Any = importlib.import_module("tqdm")
        tqdm.tqdm.monitor_interval = 0


def _preload(name: str) -> tuple[bool, str]:
    """Import what a dotted name leads to: whether a fork is as safe as it was, and what is wrong, if anything is."""
    before = _read_state()
    problem = ""
    try:
        _load(name)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        problem = _describe(error)
    changes = [what for what, value in _read_state().items() if value != before[what]]
    if changes and changes[0] == "threads":
        time.sleep(_SETTLING_S)
        changes = [what for what, value in _read_state().items() if value != before[what]]
    told = f"importing it changes: {', '.join(changes)}" if changes else ""
    return not changes, "; ".join(filter(None, (problem, told)))


def _load(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # The rest may be names in a module; a missing import inside a module is a failure.
            if length > 1 and error.name and f"{module}.".startswith(f"{error.name}."):
                continue
            raise
        for part in parts[length:]:
            # Packages such as transformers import a class's module only now.
            found = getattr(found, part)
        return


def _read_state() -> dict[str, object]:
    """What would make forks unsafe, or models that do not need the import come out otherwise than without it."""
    import torch

    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "threads": _count_threads(),
        "CUDA": torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "the working directory": Path.cwd(),
        "the umask": umask,
    }


def _count_threads() -> int | None:
    """The operating system's threads of this process, C libraries' own included; None without a Linux /proc."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return None


def _describe(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


@contextmanager
def _kept_output() -> Iterator[list[str]]:
    """Keep what is printed from the parent's terminal, which is ours too; its end is in the list after the body."""
    kept: list[str] = [""]
    streams = (sys.stdout, sys.stderr)
    file = os.memfd_create("output")
    saved = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(file, number)
        yield kept
    finally:
        for stream in streams:
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        size = os.lseek(file, 0, os.SEEK_END)
        read = os.pread(file, _MAX_OUTPUT_BYTES, max(0, size - _MAX_OUTPUT_BYTES))
        kept[0] = read.decode(errors="replace")
        os.close(file)


def _read_preloads() -> Iterator[str]:
    """The names to preload; where they come through a pipe, the first one is waited for."""
    names = os.environ.get(PRELOAD_VARIABLE, "")
    if names.startswith("@"):
        parent, _, path = names[1:].partition(":")
        # Not blocking: if the parent is gone, nobody will ever open the other end.
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(pipe, encoding="utf-8") as file:
            deadline = time.monotonic() + _NAMES_S
            # A pipe that nobody holds open any more, after the parent's death, is not told from one that is silent.
            while not select.select([pipe], [], [], _LOOK_S)[0] and time.monotonic() < deadline:
                if os.getppid() != int(parent):
                    os._exit(1)
            names = file.readline().strip()
    yield from filter(None, names.split(","))


def _record() -> None:
    try:
        readiness = make_ready(_read_preloads())
    except BaseException as error:  # noqa: BLE001
        readiness = Readiness(problem=f"making ready: {_describe(error)}")
    record_readiness(readiness)


_record()
