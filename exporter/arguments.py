"""Where each input goes in the call of `forward`: a graph takes tensors by name, `forward` may take them nested.

An input's `argument` is a path: the name of an argument of `forward`, then `[0]` for an item of a list, `(0)` for an
item of a tuple and `.key` for an item of a dict, as deep as need be: `past_key_values[1](0)`, `images.left`. What is
not a tensor (`None`, a number, a string) is a constant of the model, by a path of the same kind.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

from exporter.spec import Input, ModelSpec

__all__ = ["ArgumentError", "Arguments", "Call", "argument_of", "arguments_of", "find_roots", "nest"]

_KEY = re.compile(r"\.(?P<dict>\w+)|\[(?P<list>\d+)\]|\((?P<tuple>\d+)\)")
_ROOT = re.compile(r"\w+")


class ArgumentError(ValueError):
    """A path is malformed, or two of them contradict each other."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call of `forward`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class _Branch:
    """A container in the making."""

    kind: str
    items: dict[str, Any] = field(default_factory=dict)

    def finish(self, path: str) -> Any:
        """The dict, list or tuple itself, its branches finished first."""
        opening, closing = {"dict": (".", ""), "list": ("[", "]"), "tuple": ("(", ")")}[self.kind]
        items = {
            key: item.finish(f"{path}{opening}{key}{closing}") if isinstance(item, _Branch) else item
            for key, item in self.items.items()
        }
        if self.kind == "dict":
            return items
        missing = next((index for index in range(len(items)) if str(index) not in items), None)
        if missing is not None:
            raise ArgumentError(
                f"{path[1:]}{opening}{missing}{closing} is missing; items are counted from 0 without a gap"
            )
        ordered = [items[str(index)] for index in range(len(items))]
        return ordered if self.kind == "list" else tuple(ordered)


def argument_of(name: str, item: Input) -> str:
    """The path of an input: what it declares, or its own name."""
    return item.argument or name


def find_roots(model: ModelSpec) -> dict[str, str]:
    """Each argument of `forward` that is given something, and the config key of the first input that does."""
    roots: dict[str, str] = {}
    for name, item in model.inputs.items():
        roots.setdefault(_split(argument_of(name, item))[0], f"model.inputs.{name}")
    for path in model.constants:
        roots.setdefault(_split(path)[0], f"model.constants.{path}")
    return roots


@dataclass(frozen=True)
class Arguments:
    """How one module is called with the inputs of one spec.

    Args:
        model: Gives the inputs' paths and the constants.
        parameters: Of `forward`, as `inspect.signature` gives them.
    """

    model: ModelSpec
    parameters: Mapping[str, Parameter]

    def arrange(self, values: Mapping[str, Any], *, with_constants: bool = True) -> Call:
        """Nest one value for each input, and the constants, as `forward` takes them.

        They go by name where that is possible. Where `*args` is given something (a tuple, by its name), all that
        stands before it goes by position too.

        Args:
            values: By the inputs' names; a value of any kind.
            with_constants: None stands in place of each constant otherwise.

        Raises:
            ArgumentError: Two paths contradict each other, or leave a gap.
        """
        nested = nest(self.model, values, with_constants=with_constants)
        starred = next((name for name, item in self.parameters.items() if item.kind is Parameter.VAR_POSITIONAL), None)
        by_position = [name for name, item in self.parameters.items() if item.kind is Parameter.POSITIONAL_ONLY]
        extra: tuple[Any, ...] = ()
        if starred is not None and starred in nested:
            if not isinstance(nested[starred], tuple):
                raise ArgumentError(
                    f"forward takes *{starred}; say which with argument: {starred}(0), {starred}(1), ..."
                )
            by_position = list(self.parameters)[: list(self.parameters).index(starred)]
            extra = tuple(nested[starred])
        args = [nested[name] for name in by_position if name in nested]
        by_name = {name: value for name, value in nested.items() if name not in (*by_position, starred)}
        return Call((*args, *extra), by_name)


def arguments_of(module: Any, model: ModelSpec) -> Arguments:
    """How a `torch.nn.Module` is called with the inputs of a model."""
    return Arguments(model, signature(module.forward).parameters)


def nest(model: ModelSpec, values: Mapping[str, Any], *, with_constants: bool = True) -> dict[str, Any]:
    """One value for each input, and the constants, by the names of the arguments of `forward`.

    Raises:
        ArgumentError: Two paths contradict each other, or leave a gap.
    """
    top = _Branch("dict")
    for name, item in model.inputs.items():
        _insert(top, argument_of(name, item), values[name])
    for path, value in model.constants.items():
        _insert(top, path, value if with_constants else _blank(value))
    nested: dict[str, Any] = top.finish("")
    return nested


def _blank(value: Any) -> Any:
    """None in place of each constant; lists and dicts stay, for torch compares the structure."""
    if isinstance(value, list):
        return [_blank(item) for item in value]
    if isinstance(value, dict):
        return {key: _blank(item) for key, item in value.items()}
    return None


def _insert(top: _Branch, path: str, value: Any) -> None:
    root, keys = _split(path)
    branch, name = top, root
    for kind, key in keys:
        child = branch.items.setdefault(name, _Branch(kind))
        if not isinstance(child, _Branch) or child.kind != kind:
            raise ArgumentError(f"{path}: {name!r} is another kind of value in an earlier path")
        branch, name = child, key
    if name in branch.items:
        raise ArgumentError(f"{path}: two values for one place")
    branch.items[name] = value


def _split(path: str) -> tuple[str, list[tuple[str, str]]]:
    root = _ROOT.match(path)
    if root is None:
        raise ArgumentError(f"{path!r} does not begin with the name of an argument")
    keys: list[tuple[str, str]] = []
    position = root.end()
    while position < len(path):
        found = _KEY.match(path, position)
        if found is None or found.lastgroup is None:
            raise ArgumentError(f"{path!r}: {path[position:]!r} is none of .key, [0] and (0)")
        key = found[found.lastgroup]
        keys.append((found.lastgroup, key if found.lastgroup == "dict" else str(int(key))))
        position = found.end()
    return root[0], keys
