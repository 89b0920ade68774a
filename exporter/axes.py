"""The sizes in a declared shape: whole numbers, names of dims, and what can be computed from them.

`2*seq`, `past + seq` and `(width - 1)//2 + 1` are sizes; nothing but `+ - * // %`, parentheses and whole numbers is.
Text is parsed, never evaluated as Python.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["AxisError", "evaluate_axis", "names_in_axis"]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class AxisError(ValueError):
    """The text is no size: not arithmetic on dims, or one of its dims has no value."""


def evaluate_axis(axis: int | str, sizes: Mapping[str, int]) -> int:
    """The whole number that an axis stands for under the given sizes.

    Raises:
        AxisError: It is no size, a dim has none, or it divides by zero.
    """
    if isinstance(axis, int):
        return axis
    if axis in sizes:
        return sizes[axis]
    try:
        return _evaluate(_parse(axis), sizes)
    except ZeroDivisionError as error:
        raise AxisError(f"{axis!r} divides by zero") from error


def names_in_axis(axis: int | str) -> list[str]:
    """The names of dims in an axis, in order of appearance.

    Raises:
        AxisError: It is no size.
    """
    if isinstance(axis, int):
        return []
    tree = _parse(axis)
    # Seen with a value for every name, so that what is no arithmetic is found.
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    with suppress(ZeroDivisionError):
        _evaluate(tree, dict.fromkeys(names, 1))
    return list(dict.fromkeys(names))


def _parse(axis: str) -> ast.expr:
    try:
        return ast.parse(axis.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise AxisError(f"{axis!r} is no size") from error


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            if name not in sizes:
                raise AxisError(f"{name!r} has no size")
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, sizes)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, sizes), _evaluate(right, sizes))
    raise AxisError(f"{ast.unparse(node)!r} is no size: only whole numbers, dims and + - * // % are")
