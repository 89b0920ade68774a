"""What became of the warm template in the process that workers are forked from, told to who started that process.

Python's fork server says nothing of an ImportError in what it preloads, and dies of any other exception. So the
template (`exporter.template`) raises nothing and leaves a record here; the first forked process sends it back.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.process import BaseProcess

from exporter.failures import one_line
from exporter.plain_data import DataError, from_plain, to_plain

__all__ = ["PRELOAD_VARIABLE", "Readiness", "ask_readiness", "record_readiness", "send_readiness"]

# In the environment of the fork server: dotted names of installed classes, functions and modules, separated by commas,
# that the template is to import. Or @PID:PATH, of a named pipe from which a line of such names comes later: who starts
# the server need not know them before it begins to import torch. PID is its process id: when that is no more the
# template's parent, no names will come.
PRELOAD_VARIABLE = "MODELPRESS_PRELOAD"

_TEMPLATE = "exporter.template"
# From the fork to the answer, which waits for nothing but the machine.
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether workers can be forked from a process, and what they find there."""

    # torch, onnx, ONNX Runtime and our own steps are loaded.
    is_imported: bool = False
    # A tiny export has been done as well.
    is_warm: bool = False
    # What went wrong with either, in one line; empty if nothing did.
    problem: str = ""
    # Names that must not be preloaded: after them a fork is not safe, or is not as without them.
    unsafe_preloads: list[str] = field(default_factory=list)
    # What went wrong with which of the names, a line for each.
    preload_problems: list[str] = field(default_factory=list)
    # Of the operating system; a fork has one alone.
    num_threads: int | None = None
    # What was printed on the way, tracebacks included; for a log.
    output: str = ""


_recorded: Readiness | None = None


def record_readiness(readiness: Readiness) -> None:
    """Keep the record in this process, for those that are forked from it."""
    global _recorded  # noqa: PLW0603  (the template is one of a process too)
    _recorded = readiness


def send_readiness(connection: Connection) -> None:
    """Send the record of the process that this one was forked from; the target of the first forked process."""
    connection.send_bytes(json.dumps(to_plain(_find_record())).encode())
    connection.close()


def _find_record() -> Readiness:
    if _recorded is not None:
        return _recorded
    # An ImportError was swallowed; what it was shows when it comes again.
    try:
        importlib.import_module(_TEMPLATE)
    except BaseException as error:  # noqa: BLE001  (whatever it is: the record has to tell of it)
        return Readiness(problem=one_line(f"importing {_TEMPLATE}: {type(error).__name__}: {error}"))
    found = _recorded or Readiness()
    problem = f"the fork server did not import {_TEMPLATE}, though a process forked from it does: is it on PYTHONPATH?"
    return replace(found, is_imported=False, is_warm=False, problem=found.problem or problem)


def ask_readiness(start_process: Callable[[Callable[..., None], Sequence[object], str], BaseProcess]) -> Readiness:
    """Have a process forked and learn from it whether the server is fit; waits until the server has done its imports.

    Whatever comes in between (the server dies, or does not answer) makes a record with that as its problem.

    Args:
        start_process: Starts one, given its target, the target's arguments and a name.
    """
    receiver, sender = Pipe(duplex=False)
    with receiver:
        with sender:
            try:
                process = start_process(send_readiness, (sender,), "readiness")
            except (OSError, EOFError) as error:
                return Readiness(problem=f"the fork server ended while it was starting ({type(error).__name__})")
        readiness = _receive(receiver)
    process.kill()
    process.join()
    process.close()
    return readiness


def _receive(receiver: Connection) -> Readiness:
    try:
        if not receiver.poll(_ANSWER_S):
            return Readiness(problem=f"a process forked from the fork server does not answer in {_ANSWER_S:.0f} s")
        return from_plain(Readiness, json.loads(receiver.recv_bytes()))
    except (OSError, EOFError, ValueError, DataError) as error:
        problem = f"a process forked from the fork server ended without an answer ({type(error).__name__})"
        return Readiness(problem=problem)
