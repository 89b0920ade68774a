"""Reads from the source what the `forward` of a class takes, without importing it.

What cannot be told from the source (a factory function, a class made at run time) comes back as None, and the worker
finds out.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from pipeline.source_code import find_module, find_target, parse_source, resolve_import

__all__ = ["Forward", "find_forward"]

_MAX_BASES = 12


@dataclass(frozen=True)
class Forward:
    """The arguments of a `forward`, `self` left out."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    takes_any_keyword: bool


def find_forward(dotted: str) -> Forward | None:
    """What the `forward` of a class takes, by its own source or that of a base class; None where it cannot be told."""
    target = find_target(dotted)
    if target is None or len(target.names) != 1:
        return None
    return _forward_of(target.module, target.path, target.names[0], _MAX_BASES)


def _forward_of(module: str, path: Path, name: str, depth: int) -> Forward | None:
    tree = parse_source(path)
    if tree is None or depth == 0:
        return None
    # What binds the name at the top level; anything but one class or one import is not for us to read.
    match [node for node in tree.body if name in _bound_names(node)]:
        case [ast.ClassDef() as node]:
            return _forward_of_class(module, path, node, depth)
        case [ast.ImportFrom() as node]:
            origin = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            return _forward_in_module(resolve_import(node, module, path), origin, depth - 1)
    return None


def _forward_of_class(module: str, path: Path, node: ast.ClassDef, depth: int) -> Forward | None:
    match [item for item in node.body if "forward" in _bound_names(item)]:
        case [ast.FunctionDef(args=arguments)]:
            return _read_arguments(arguments)
        case [_, *_]:
            return None
    # The method resolution order begins with the first base; if that cannot be read, neither can what it hides.
    match node.bases:
        case [ast.Name(id=base), *_]:
            return _forward_of(module, path, base, depth - 1)
    return None


def _bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement may bind, those in the blocks of an `if` or a `try` included."""
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name for alias in aliases}
    names = set()
    for child in ast.walk(statement):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            names.add(child.id)
        elif isinstance(child, ast.stmt) and child is not statement:
            names |= _bound_names(child)
    return names


def _forward_in_module(module: str, name: str, depth: int) -> Forward | None:
    # torch.nn.Module's own forward is a placeholder that says nothing.
    if module.partition(".")[0] == "torch":
        return None
    spec = find_module(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return _forward_of(module, Path(spec.origin), name, depth)


def _read_arguments(arguments: ast.arguments) -> Forward:
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1:]
    num_required = max(0, len(positional) - len(arguments.defaults))
    required, optional = positional[:num_required], positional[num_required:]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        (required if default is None else optional).append(argument.arg)
    if arguments.vararg is not None:
        optional.append(arguments.vararg.arg)
    return Forward(tuple(required), tuple(optional), arguments.kwarg is not None)
