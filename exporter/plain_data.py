"""Dataclasses to plain JSON data and back, with errors that name the place.

Not for config files: OmegaConf reads those, with interpolation and overrides. This is for the files that pass
between processes, where the standard library has to be enough.
"""

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

__all__ = ["DataError", "flatten", "from_plain", "to_plain"]

T = TypeVar("T")


class DataError(ValueError):
    """Data from a file does not have the form of the class it was written from."""


def to_plain(value: Any) -> Any:
    """Turn dataclasses, enums and containers of them into dicts, lists and JSON's scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one with dotted keys; lists, scalars and empty dicts are values."""
    if not isinstance(node, dict) or not node:
        return {prefix: node} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def from_plain(cls: type[T], data: Any, place: str = "") -> T:
    """Build a `cls` from what `to_plain` made of one.

    Raises:
        DataError: A key is unknown or missing, or a value has the wrong type; the message says where.
    """
    return typing.cast(T, _read(cls, data, place or cls.__name__))


def _read(hint: Any, data: Any, place: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if origin in (types.UnionType, typing.Union):
        return _read_union(args, data, place)
    if origin is list:
        _expect(data, list, place)
        return [_read(args[0], item, f"{place}[{i}]") for i, item in enumerate(data)]
    if origin is dict:
        _expect(data, dict, place)
        return {key: _read(args[1], item, f"{place}.{key}") for key, item in data.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError as error:
            raise DataError(f"{place}: {data!r} is not one of {[m.value for m in hint]}") from error
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, data, place)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError as error:
            raise DataError(f"{place}: {error}") from error
    _expect(data, hint, place)
    return data


def _read_union(args: tuple[Any, ...], data: Any, place: str) -> Any:
    if data is None and type(None) in args:
        return None
    members = [arg for arg in args if arg is not type(None)]
    for member in members[:-1]:
        try:
            return _read(member, data, place)
        except DataError:
            continue
    return _read(members[-1], data, place)


@cache
def _hints_of(cls: Any) -> dict[str, Any]:
    # Evaluates the annotations anew in each call otherwise, which is most of the time of reading a result.
    return typing.get_type_hints(cls)


def _read_dataclass(cls: Any, data: Any, place: str) -> Any:
    _expect(data, dict, place)
    hints = _hints_of(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise DataError(f"{place}: unknown key {unknown[0]!r}")
    values = {key: _read(hints[key], item, f"{place}.{key}") for key, item in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise DataError(f"{place}: {error}") from error


def _expect(data: Any, cls: type, place: str) -> None:
    if not isinstance(data, cls) or (isinstance(data, bool) and cls is not bool):
        raise DataError(f"{place}: expected {cls.__name__}, found {type(data).__name__} {data!r:.80}")
