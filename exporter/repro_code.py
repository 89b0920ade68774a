"""Values of a spec as Python source: calls of their `_target_`s, containers, shapes."""

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from string import Template
from typing import Any

from exporter.axes import evaluate_axis
from exporter.targets import collect_targets

__all__ = ["Code", "fill_in", "import_modules", "render_axis", "render_call", "render_plain"]

_WIDTH = 88
# Where a gap is a line of its own, the gap's own indentation.
_GAP = re.compile(r"^( *)\$(\w+)$", re.MULTILINE)


class Code(str):
    """Text that stands in a value for itself: Python source, not a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def fill_in(template: str, **parts: str | Iterable[str]) -> str:
    """A template with its gaps filled; a gap on a line of its own takes lines, and is gone where there are none."""
    texts = {name: part if isinstance(part, str) else "\n".join(part) for name, part in parts.items()}

    def put(gap: re.Match[str]) -> str:
        lines = texts[gap[2]].splitlines()
        return "\n".join(f"{gap[1]}{line}".rstrip() for line in lines) if lines else "\0"

    # Escaped: what is put in may hold dollars of its own.
    whole = _GAP.sub(lambda gap: put(gap).replace("$", "$$"), template).replace("\0\n", "")
    return Template(whole).substitute(texts)


def render_call(node: Any, depth: int = 0) -> str:
    """A config node: a dict with `_target_` is a call; what is long goes over several lines."""
    if isinstance(node, dict) and "_target_" in node:
        rest = {key: value for key, value in node.items() if key not in ("_target_", "_args_")}
        named = {key: value for key, value in rest.items() if str(key).isidentifier()}
        items = [render_call(value, depth + 1) for value in node.get("_args_", [])]
        items += [f"{key}={render_call(value, depth + 1)}" for key, value in named.items()]
        if len(named) < len(rest):
            odd = {key: value for key, value in rest.items() if key not in named}
            items.append(f"**{render_call(odd, depth + 1)}")
        return _enclose(f"{node['_target_']}(", items, ")", depth)
    return _render(node, depth, render_call)


def render_plain(node: Any, depth: int = 0) -> str:
    """Containers and values as they are, whatever their keys."""
    return _render(node, depth, render_plain)


def render_axis(axis: int | str) -> str:
    """A size of a declared shape, computed from the dict `sizes`."""
    if isinstance(axis, int):
        return str(axis)
    # Seen to be arithmetic, as everywhere: text from a spec is not pasted into a program unread.
    tree = ast.parse(axis.strip(), mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    try:
        evaluate_axis(axis, dict.fromkeys(names, 1))
    except ValueError as error:
        if "divides by zero" not in str(error):
            raise
    return ast.unparse(_Sizes().visit(tree))


class _Sizes(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Subscript(ast.Name("sizes", ast.Load()), ast.Constant(node.id), ast.Load())


def import_modules(*nodes: Any) -> list[str]:
    """The import statements that the targets in config nodes need."""
    return [f"import {name}" for name in sorted({_find_module(target) for target in collect_targets(nodes)}) if name]


def _find_module(target: str) -> str:
    """The part of a dotted path that is a module: what is imported already, else up to the first capital letter."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:length]) in sys.modules:
            return ".".join(parts[:length])
    end = next((place for place, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    return ".".join(parts[:end])


def _render(node: Any, depth: int, render: Any) -> str:
    if isinstance(node, Mapping):
        items = [f"{key!r}: {render(value, depth + 1)}" for key, value in node.items()]
        return _enclose("{", items, "}", depth)
    if isinstance(node, list):
        return _enclose("[", [render(value, depth + 1) for value in node], "]", depth)
    if isinstance(node, tuple):
        end = ",)" if len(node) == 1 else ")"
        return _enclose("(", [render(value, depth + 1) for value in node], end, depth)
    return repr(node)


def _enclose(start: str, items: list[str], end: str, depth: int) -> str:
    flat = f"{start}{', '.join(items)}{end}"
    if len(flat) + 4 * depth <= _WIDTH and "\n" not in flat:
        return flat
    inner = "".join(f"{'    ' * (depth + 1)}{item},\n" for item in items)
    return f"{start}\n{inner}{'    ' * depth}{end.removeprefix(',')}"
