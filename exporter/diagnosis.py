"""What more can be found out about a capture that failed: all the operators, and whether `forward` runs at all.

Runs only after a failure: the eager forward that it takes costs time and memory that a good export need not spend.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from exporter.arguments import Call
from exporter.errors import FailureKind, StepError
from exporter.failures import describe_failure
from exporter.result import Step

__all__ = ["explain_capture", "uses_attention"]

# torch's own words; its analysis of the graph lists every operator, the exception names the first alone.
_ANALYSIS = re.compile(r"Errors grouped by operator:\n(.*?)(?:\n## |\Z)", re.DOTALL)
_LISTED = re.compile(r"^- `([^`]+)`:", re.MULTILINE)
_DISPATCH = re.compile(
    r"No ONNX function found for <(?:OpOverload\(op='([^']+)', overload='([^']+)'\)|(?:built-in )?function (\w+))"
)
_FUNCTION = re.compile(r"<(?:built-in )?function (\w+)[^>]*>")


def explain_capture(error: Exception, module: nn.Module, call: Call, torch_report: Path) -> None:
    """Say more of a failed capture, where there is more to say.

    Raises:
        StepError: Which operators have no ONNX function; or that `forward` fails without the exporter too.
    """
    if isinstance(error, StepError):
        return
    kind = describe_failure(Step.capture, error).kind
    if kind is FailureKind.unsupported_op:
        ops = sorted({*_read_listed(torch_report), *_read_dispatched(error)})
        if ops:
            raise StepError(kind, f"no ONNX function for {', '.join(ops)}", ops=ops) from error
    if kind is FailureKind.capture_error:
        _require_forward(module, call)


def uses_attention(module: nn.Module, call: Call) -> bool:
    """Whether `forward` calls torch's attention, found by a run of it."""
    watch = _AttentionWatch()
    with watch:
        try:
            _run(module, call)
        except Exception:  # noqa: BLE001  (whatever a model raises, no way of capturing attention mends it)
            return False
    return watch.seen


def _require_forward(module: nn.Module, call: Call) -> None:
    try:
        _run(module, call)
    except Exception as error:
        message = f"PyTorch on the example: {type(error).__name__}: {error}"
        raise StepError(FailureKind.forward_error, message) from error


def _run(module: nn.Module, call: Call) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        # Parity runs it where its warnings belong.
        warnings.simplefilter("ignore")
        # Clones: a forward may write to its arguments.
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (call.args, call.kwargs))
        module(*args, **kwargs)


def _read_listed(torch_report: Path) -> Iterator[str]:
    """The operators in torch's report; none where there is no such list in it."""
    if torch_report.exists():
        for analysis in _ANALYSIS.findall(torch_report.read_text(encoding="utf-8")):
            yield from (_FUNCTION.sub(r"\1", name) for name in _LISTED.findall(analysis))


def _read_dispatched(error: BaseException) -> Iterator[str]:
    """The operator that the exception is about; in the body of a loop or a branch, torch's list does not have it."""
    cause: BaseException | None = error
    while cause is not None:
        for op, overload, function in _DISPATCH.findall(str(cause)):
            yield function or f"{op}.{overload}"
        cause = cause.__cause__


class _AttentionWatch(TorchFunctionMode):
    """Notes whether a function of torch with attention in its name is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        self.seen = self.seen or "attention" in name or "transformer_encoder" in name
        return func(*args, **(kwargs or {}))
