"""The user's own ONNX functions for operators, from the `_target_` in `export.custom_translation_table`.

torch checks little of such a table and says less: what it would stumble over later is refused here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from exporter.build import construct
from exporter.errors import FailureKind, StepError

__all__ = ["TranslationTable", "build_table"]

# Operators, or torch's functions on sizes such as torch.sym_not, to functions that make ONNX.
TranslationTable = dict[Any, Callable[..., Any]]

_KEY = "export.custom_translation_table"


def build_table(node: Mapping[str, Any] | None) -> TranslationTable | None:
    """Call the target; None where the spec has none.

    Raises:
        StepError: The target cannot be imported, raises, or gives something else than a dict from operators to
            functions.
    """
    if node is None:
        return None
    target = node.get("_target_")
    try:
        table = construct(dict(node))
    except StepError as error:
        raise StepError(error.kind, f"{_KEY}: {error.cause}", error.hint) from error
    except Exception as error:
        raise StepError(FailureKind.table_error, f"{_KEY}: {target} raised {type(error).__name__}: {error}") from error
    if not isinstance(table, dict):
        raise StepError(
            FailureKind.table_error,
            f"{_KEY}: {target} gives a {type(table).__name__}, not a dict {{OpOverload: function}}",
        )
    for key, function in table.items():
        _require_operator(key)
        if not callable(function):
            raise StepError(
                FailureKind.table_error, f"{_KEY}: the function for {key} is a {type(function).__name__}, not callable"
            )
    return table


def _require_operator(key: object) -> None:
    if isinstance(key, OpOverloadPacket):
        names = ", ".join(f"{key}.{name}" for name in key.overloads())  # type: ignore[no-untyped-call]
        raise StepError(FailureKind.table_error, f"{_KEY}: {key} has overloads; name one: torch.ops.{names}")
    is_function = callable(key) and getattr(torch, getattr(key, "__name__", ""), None) is key
    if not isinstance(key, OpOverload) and not is_function:
        raise StepError(
            FailureKind.table_error,
            f"{_KEY}: the key {key!r} is a {type(key).__name__}; keys are operators: torch.ops.my_ops.my_op.default",
        )
