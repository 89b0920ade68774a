"""From a worker that is gone to the record of its export: the result it left, or the story of its death."""

import dataclasses
import signal
import time
from typing import assert_never

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import make_failure, put_first
from exporter.plain_data import DataError
from exporter.provenance import read_provenance
from exporter.result import ExportResult
from exporter.spec import ExportSpec
from exporter.worker import STATUS_STORAGE
from pipeline.executor import Ended, Ending

__all__ = ["collect_result", "fail_result"]

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def collect_result(spec: ExportSpec, ended: Ended) -> ExportResult:
    """The worker's own result where it is whole; otherwise one that says how the worker ended.

    A clean exit status proves nothing: a model may call `os._exit(0)`. Only a written result counts.
    """
    directory = ExportDirectory(ended.task.directory)
    if ended.ending is Ending.exited and ended.code == 0:
        try:
            result = directory.read_result()
            if result.failure is not None and result.failure.kind is FailureKind.storage_error:
                # Whoever comes next needs the room, and we for our records; what is there of the model is no use.
                directory.clear_model()
            return result
        except FileNotFoundError:
            pass
        except DataError as error:
            return fail_result(spec, directory, FailureKind.corrupt_output, str(error), ended.duration_s)
    kind, cause = _tell_ending(ended)
    return fail_result(spec, directory, kind, cause, ended.duration_s)


def fail_result(
    spec: ExportSpec, directory: ExportDirectory, kind: FailureKind, cause: str, duration_s: float
) -> ExportResult:
    """Write, in the worker's place, the result of an export that it could not finish."""
    failure = put_first(directory.read_first_failure(), make_failure(directory.read_current_step(), kind, cause))
    result = describe_result(spec, failure, time.time() - duration_s, provenance=read_provenance(directory))
    try:
        # Published already, where only the last word of the disk was missing; or the model has removed it.
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.clear_unfinished()
        if kind is FailureKind.storage_error:
            directory.clear_model()
        write_result(directory, result)
    except OSError as error:
        # The disk is what the user has to hear of first.
        kind = FailureKind.storage_error
        failure = make_failure(failure.step, kind, f"{error}; before that: {cause}")
        result = dataclasses.replace(result, failure=failure)
    return result


def _tell_ending(ended: Ended) -> tuple[FailureKind, str]:
    match ended.ending:
        case Ending.timed_out:
            return FailureKind.timeout, f"no result after {ended.code} s; the worker was ended"
        case Ending.signalled:
            name = _signal_name(ended.code)
            is_crash = ended.code in _CRASHES
            return (FailureKind.crashed if is_crash else FailureKind.killed), f"the worker died of {name}"
        case Ending.out_of_memory:
            return FailureKind.out_of_memory, f"the worker was killed for its memory: {ended.evidence}"
        case Ending.lost:
            return FailureKind.killed, f"the worker was lost: {ended.evidence}"
        case Ending.exited:
            if ended.code == STATUS_STORAGE:
                return FailureKind.storage_error, "the worker could not write its result"
            return FailureKind.exited_early, f"the worker ended with exit status {ended.code} and no result"
        case _:
            assert_never(ended.ending)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
