"""Tells from an exception which kind of failure it is, its root cause in one line, and what to do.

torch's exporter raises a few wrapper types and chains the real reason behind them; they are matched by name
because most are private to it.
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import replace

from exporter.errors import FailureKind, StepError
from exporter.failure_fingerprint import take_failure_fingerprint
from exporter.result import Failure, Step

__all__ = ["HINTS", "describe_failure", "is_storage_error", "make_failure", "one_line", "put_first", "tell_error"]

_MAX_CAUSE = 400
# torch's own words, on the CPU and on a GPU; both are RuntimeErrors.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory")
_STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)

HINTS: dict[FailureKind, str] = {
    FailureKind.import_error: "check source._target_, and that its file is in this folder or installed",
    FailureKind.build_error: "check the arguments under source against the constructor",
    FailureKind.weights_error: "check that the weights file belongs to this model",
    FailureKind.signature_mismatch: "rename the inputs after the arguments of forward",
    FailureKind.input_error: "check the fill's file, or model.input_factory, against the inputs' shapes and dtypes",
    FailureKind.forward_error: "call forward in plain PyTorch at these sizes; mend it, the inputs or the dims",
    FailureKind.capture_error: "read torch_onnx_report.md for the line of forward that does not capture",
    FailureKind.data_dependent: "replace the branch on a tensor's value by torch.where or torch.cond",
    FailureKind.dim_specialized: "give the axis a whole number, or mend the code that fixes its size",
    FailureKind.dim_conflict: "forward makes sizes equal or bounds them: declare one name for both, or the bounds",
    FailureKind.table_error: "check what export.custom_translation_table returns: {OpOverload: function}",
    FailureKind.decomposition_error: "read torch_onnx_report.md for the operator that does not decompose; replace it",
    FailureKind.unsupported_op: "replace the operators, or give each a function in export.custom_translation_table",
    FailureKind.translation_error: "read torch_onnx_report.md for the node; give it export.custom_translation_table",
    FailureKind.optimize_error: "try export.optimize=none",
    FailureKind.precision_error: "choose another precision; docs/precision.md says what each applies to",
    FailureKind.save_error: "read worker.log",
    FailureKind.storage_error: "free or choose another disk, then run the same command again",
    FailureKind.invalid_onnx: "try export.optimize=none or another export.opset_version",
    FailureKind.opset_mismatch: "choose another export.opset_version; 18 is the one that needs no conversion",
    FailureKind.interface_mismatch: "make the names, dtypes and shapes in the config those of the model",
    FailureKind.dim_narrowed: "narrow the dim in the config, or mend the branch on its size",
    FailureKind.ort_load: "try export.optimize=none or a lower export.opset_version, or upgrade onnxruntime",
    FailureKind.baked_branch: "forward branches on this size: narrow the dim, or mend the branch",
    FailureKind.parity_failed: "try export.optimize=none; if it passes, the optimizer is at fault",
    FailureKind.parity_unsupported: "ONNX Runtime cannot run this here, so nothing is proven; try fp32",
    FailureKind.nondeterministic: "remove randomness and state from forward",
    FailureKind.nonfinite: "use smaller fills, or declare nonfinite: true for the output",
    FailureKind.runtime_error: "read the message for the node and the case; try export.optimize=none",
    FailureKind.measure_error: "read worker.log",
    FailureKind.out_of_memory: "use fewer executor.workers, or smaller dims",
    FailureKind.crashed: "read worker.log: the stack at the crash is in it",
    FailureKind.killed: "look for the out-of-memory killer in the system's log; use fewer executor.workers",
    FailureKind.timeout: "raise executor.timeout_s, or read worker.log for where it hung",
    FailureKind.exited_early: "find the exit call in the model's code",
    FailureKind.corrupt_output: "run the same command again; if it stays, check the disk",
    FailureKind.internal_error: "this is a bug in modelpress: please report it with worker.log",
}

_DEFAULT_KIND: dict[Step, FailureKind] = {
    Step.build: FailureKind.build_error,
    Step.capture: FailureKind.capture_error,
    Step.optimize: FailureKind.optimize_error,
    Step.save: FailureKind.save_error,
    Step.check: FailureKind.invalid_onnx,
    Step.parity: FailureKind.runtime_error,
    Step.measure: FailureKind.measure_error,
}


def make_failure(
    step: Step | None, kind: FailureKind, cause: str, hint: str = "", ops: Sequence[str] = (), *, detail: str = ""
) -> Failure:
    """Put a failure together: the cause in one line, a hint for its kind where none is given, its fingerprint.

    Args:
        step: That failed.
        kind: Of the fixed list.
        cause: What the fingerprint is taken of.
        hint: What to try.
        ops: The operators at fault.
        detail: Goes on where the cause ends, and is no part of the fingerprint.
    """
    return Failure(
        step=step,
        kind=kind,
        cause=one_line(f"{cause}; {detail}" if detail else cause),
        hint=hint or HINTS[kind],
        ops=list(ops),
        fingerprint=take_failure_fingerprint(kind, cause, ops),
    )


def put_first(first: Failure | None, later: Failure) -> Failure:
    """The failure to report where a worker ended while it tried a way round another one."""
    if first is None:
        return later
    return replace(first, hint=f"{first.hint} (another way was tried, and ended with {later.kind}: {later.cause})")


def describe_failure(step: Step, error: BaseException) -> Failure:
    """Classify what a step raised.

    Args:
        step: The step that raised it.
        error: The exception, with its chain of causes.
    """
    if isinstance(error, StepError):
        return make_failure(step, error.kind, error.cause, error.hint, error.ops, detail=error.detail)
    chain = _chain(error)
    root = chain[-1]
    return make_failure(step, _classify(step, chain), tell_error(root))


def tell_error(error: BaseException) -> str:
    """Its type and its message, if it has one; an exception of a model's own may fail to say it."""
    message = _read_message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _read_message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  (whatever a model's code raises here, the error itself is what counts)
        return ""


def is_storage_error(error: BaseException) -> bool:
    """Whether the disk is at fault: full, read-only, over quota, not permitted or broken."""
    return isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS


def one_line(text: str) -> str:
    """The text without colours and line breaks, what UTF-8 or a terminal cannot take escaped, and cut to be read."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: ascii(found[0])[1:-1], plain)
    return plain if len(plain) <= _MAX_CAUSE else plain[: _MAX_CAUSE - 3] + "..."


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _classify(step: Step, chain: list[BaseException]) -> FailureKind:
    root = chain[-1]
    if isinstance(root, MemoryError) or any(words in _read_message(root) for words in _OUT_OF_MEMORY):
        return FailureKind.out_of_memory
    if is_storage_error(root):
        return FailureKind.storage_error
    if step is Step.capture:
        return _classify_capture(chain)
    return _DEFAULT_KIND[step]


def _classify_capture(chain: list[BaseException]) -> FailureKind:
    names = [type(error).__name__ for error in chain]
    if names[0] == "TorchExportError":
        return _classify_torch_export(names, _read_message(chain[-1]))
    if "VersionConverterError" in names:
        return FailureKind.opset_mismatch
    if "DispatchError" in names:
        return FailureKind.unsupported_op
    if "GraphConstructionError" in names:
        return FailureKind.translation_error
    if names[0] == "ConversionError":
        is_decomposition = "step 2/3" in str(chain[0])
        return FailureKind.decomposition_error if is_decomposition else FailureKind.translation_error
    return FailureKind.capture_error


def _classify_torch_export(names: list[str], message: str) -> FailureKind:
    if any(name.startswith("GuardOnDataDependent") for name in names):
        return FailureKind.data_dependent
    # torch's words where a dim that was asked to be dynamic comes out as a number, and where two come out as one.
    if "inferred a static shape" in message:
        return FailureKind.dim_specialized
    if "Constraints violated" in message or "conflicts between user-specified ranges" in message:
        return FailureKind.dim_conflict
    return FailureKind.capture_error
