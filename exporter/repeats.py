"""Writes out inputs and outputs that are declared once for many layers."""

from dataclasses import replace
from typing import TypeVar

from exporter.errors import ConfigError
from exporter.spec import Input, ModelSpec, Output

__all__ = ["expand_repeats"]

Declared = TypeVar("Declared", Input, Output)

_INDEX = "{i}"


def expand_repeats(model: ModelSpec) -> ModelSpec:
    """The model with each input and output that has `repeat` replaced by as many, numbered from 0.

    Raises:
        ConfigError: `repeat` is less than 1, or the name or the argument has no `{i}` for the number.
    """
    return replace(model, inputs=_expand("inputs", model.inputs), outputs=_expand("outputs", model.outputs))


def _expand(kind: str, declared: dict[str, Declared]) -> dict[str, Declared]:
    expanded: dict[str, Declared] = {}
    for name, item in declared.items():
        if item.repeat is None:
            if name in expanded:
                raise ConfigError(f"model.{kind}.{name}: a repeated one comes to the same name")
            expanded[name] = item
            continue
        place = f"model.{kind}.{name}"
        if item.repeat < 1:
            raise ConfigError(f"{place}.repeat: {item.repeat} must be at least 1")
        argument = getattr(item, "argument", None)
        for key, text in ((place, name), (f"{place}.argument", argument)):
            if text is not None and _INDEX not in text:
                raise ConfigError(f"{key}: {text!r} is repeated and needs {_INDEX} where its number goes")
        for index in range(item.repeat):
            changes = {"repeat": None} if argument is None else {"repeat": None, "argument": _number(argument, index)}
            if _number(name, index) in expanded:
                raise ConfigError(f"{place}: number {index} comes to a name that is taken, {_number(name, index)}")
            expanded[_number(name, index)] = replace(item, **changes)
    return expanded


def _number(text: str, index: int) -> str:
    return text.replace(_INDEX, str(index))
