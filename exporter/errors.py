"""Errors that modelpress raises, and the exit code each one stands for.

    ModelpressError                a user or the machine must act; printed without a traceback
    +-- ExportFailedError    1     an export failed, so there is no program to work with
    +-- GateError            1     a release did not pass, and was to be promoted all the same
    +-- ConfigError          2     the config or the command line is wrong; nothing started
    +-- LockedError          4     another run holds the output directory
    +-- StorageError         5     disk full, read-only, no permission; or what is not ours in the way
    +-- ClusterError         5     the cluster that should run the exports cannot be used
    +-- SyncError            6     exports are fine; MLflow or DVC is behind
    +-- IntegrityError       7     published bytes do not match their record
    StepError                      one step of one export failed; becomes a `Failure` in the result

Anything else that escapes is a bug in modelpress (exit code 3) and keeps its traceback.
"""

from collections.abc import Sequence
from enum import IntEnum, StrEnum

__all__ = [
    "ClusterError",
    "ConfigError",
    "ExitCode",
    "ExportFailedError",
    "FailureKind",
    "GateError",
    "IntegrityError",
    "LockedError",
    "ModelpressError",
    "StepError",
    "StorageError",
    "SyncError",
    "WorkerError",
    "choose_worst",
]


class ExitCode(IntEnum):
    """What the command tells the shell; the README has the same table."""

    OK = 0
    EXPORT_FAILED = 1
    CONFIG = 2
    BUG = 3
    LOCKED = 4
    STORAGE = 5
    SYNC_BEHIND = 6
    INTEGRITY = 7
    HUNG_UP = 129
    INTERRUPTED = 130
    # As the shell says of SIGKILL. It stands in the summary of a run that could not write its own, and
    # `pipeline.status` returns it for such a run.
    KILLED = 137
    TERMINATED = 143


# Where several hold at once. Others, of an orderly stop, end a command before there is anything to weigh.
_WORST_FIRST = (
    *(ExitCode.BUG, ExitCode.INTEGRITY, ExitCode.CONFIG, ExitCode.LOCKED, ExitCode.STORAGE),
    *(ExitCode.EXPORT_FAILED, ExitCode.SYNC_BEHIND),
)


def choose_worst(*codes: ExitCode) -> ExitCode:
    """The one exit code for a command that came to several."""
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)


class FailureKind(StrEnum):
    """Why an export did not pass: the fixed list that summaries, tags and tests share."""

    # build
    import_error = "import_error"
    build_error = "build_error"
    weights_error = "weights_error"
    signature_mismatch = "signature_mismatch"
    input_error = "input_error"
    # capture
    forward_error = "forward_error"
    capture_error = "capture_error"
    data_dependent = "data_dependent"
    dim_specialized = "dim_specialized"
    dim_conflict = "dim_conflict"
    table_error = "table_error"
    decomposition_error = "decomposition_error"
    unsupported_op = "unsupported_op"
    translation_error = "translation_error"
    # optimize, save
    optimize_error = "optimize_error"
    precision_error = "precision_error"
    save_error = "save_error"
    storage_error = "storage_error"
    # check
    invalid_onnx = "invalid_onnx"
    opset_mismatch = "opset_mismatch"
    interface_mismatch = "interface_mismatch"
    dim_narrowed = "dim_narrowed"
    # parity
    ort_load = "ort_load"
    baked_branch = "baked_branch"
    parity_failed = "parity_failed"
    parity_unsupported = "parity_unsupported"
    nondeterministic = "nondeterministic"
    nonfinite = "nonfinite"
    runtime_error = "runtime_error"
    measure_error = "measure_error"
    # the process
    out_of_memory = "out_of_memory"
    crashed = "crashed"
    killed = "killed"
    timeout = "timeout"
    exited_early = "exited_early"
    corrupt_output = "corrupt_output"
    internal_error = "internal_error"


class ModelpressError(Exception):
    """Something that the user or the machine has to put right."""

    exit_code: ExitCode = ExitCode.BUG


class ExportFailedError(ModelpressError):
    """An export failed, and its program was asked for all the same."""

    exit_code = ExitCode.EXPORT_FAILED


class GateError(ModelpressError):
    """A release did not pass its gates."""

    exit_code = ExitCode.EXPORT_FAILED


class ConfigError(ModelpressError):
    """The config or the command line is wrong; raised before anything starts."""

    exit_code = ExitCode.CONFIG


class LockedError(ModelpressError):
    """Another run holds the output directory."""

    exit_code = ExitCode.LOCKED


class StorageError(ModelpressError):
    """The output cannot be written: full, read-only, not permitted, or taken by what is not ours to replace."""

    exit_code = ExitCode.STORAGE


class WorkerError(ModelpressError):
    """No worker can be run on this machine: what an export needs cannot be imported, or no process started.

    Args:
        message: For the user.
        output: What was printed on the way, for a log.
    """

    exit_code = ExitCode.STORAGE

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class ClusterError(WorkerError):
    """The cluster that should run the exports is out of reach, or its nodes are not fit for them."""


class SyncError(ModelpressError):
    """MLflow or DVC did not take what was exported; the exports themselves are fine."""

    exit_code = ExitCode.SYNC_BEHIND


class IntegrityError(ModelpressError):
    """Bytes on disk are not the bytes that were recorded."""

    exit_code = ExitCode.INTEGRITY


class StepError(Exception):
    """A step found the export wrong, and knows the kind, the cause and what to do.

    Args:
        kind: Which of the fixed list of failures this is.
        cause: One line, with the offending value.
        hint: What the user can try next; a hint for the kind is used where it is empty.
        ops: The operators at fault, where it is about operators.
        detail: More words on the cause, which do not tell one failure from another.
    """

    def __init__(
        self, kind: FailureKind, cause: str, hint: str = "", ops: Sequence[str] = (), *, detail: str = ""
    ) -> None:
        super().__init__(f"{cause}; {detail}" if detail else cause)
        self.kind = kind
        self.cause = cause
        self.hint = hint
        self.ops = list(ops)
        self.detail = detail
