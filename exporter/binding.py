"""The arguments of a call, as forward takes them, sorted into the graph's inputs; what does not fit is said.

The reverse of `exporter.arguments`, which nests inputs into a call.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.arguments import find_roots, nest
from exporter.axes import AxisError, evaluate_axis
from exporter.cases import all_sizes
from exporter.result import ArgumentRecord
from exporter.spec import Input, ModelSpec
from exporter.suggestion import suggest

__all__ = ["bind", "record_arguments"]


@dataclass(frozen=True)
class _Slot:
    """Stands, nested as forward takes it, for the tensor of an input."""

    name: str


def record_arguments(module: torch.nn.Module) -> list[ArgumentRecord]:
    """The parameters of `forward`, for whoever calls the program later without the module."""
    parameters = inspect.signature(module.forward).parameters.values()
    return [ArgumentRecord(name=item.name, kind=item.kind.name.lower()) for item in parameters]


def bind(
    model: ModelSpec, arguments: Sequence[ArgumentRecord], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The tensor for each input of the graph, by name.

    Constants may be left out; where one is given it has to be the one in the graph.

    Args:
        model: Gives the inputs, their places in the call, and the constants.
        arguments: The parameters of `forward`; where they are not known, all go by name.
        args: By position.
        kwargs: By name.

    Raises:
        TypeError: An argument is missing, unknown, of the wrong form or of the wrong dtype.
        ValueError: A shape is not the declared one, or a constant not the one in the graph.
    """
    given = _bind_names(model, arguments, args, kwargs)
    template = nest(model, {name: _Slot(name) for name in model.inputs})
    for name in given.keys() - template.keys():
        raise TypeError(f"{name!r} is not in the spec: the graph was made with forward's default for it")
    found: dict[str, torch.Tensor] = {}
    for name, tensor in _match(template, given, ""):
        found[name] = _require_tensor(name, model.inputs[name], tensor)
    _check_sizes(model, found)
    return found


def _bind_names(
    model: ModelSpec, arguments: Sequence[ArgumentRecord], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    known = arguments or [ArgumentRecord(name=root, kind="keyword_only") for root in find_roots(model)]
    kinds = {item.name: inspect._ParameterKind[item.kind.upper()] for item in known}  # noqa: SLF001
    signature = inspect.Signature(
        # All with a default: which of them are needed is the spec's to say.
        [
            inspect.Parameter(name, kind)
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            else inspect.Parameter(name, kind, default=None)
            for name, kind in kinds.items()
        ]
    )
    try:
        bound = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        near = next((one for name in kwargs if name not in kinds and (one := suggest(name, kinds))), None)
        meant = f"; did you mean {near!r}?" if near else ""
        raise TypeError(f"forward({', '.join(kinds)}): {error}{meant}") from None
    for name, kind in kinds.items():
        if kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(bound.pop(name, {}))
    return bound


def _match(template: Any, given: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What is given for each slot; a constant only has to be the same."""
    if isinstance(template, _Slot):
        yield template.name, given
    elif isinstance(template, dict):
        yield from _match_dict(template, given, path)
    elif isinstance(template, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(template):
            what = f"{type(given).__name__}{f' of {len(given)}' if isinstance(given, list | tuple) else ''}"
            raise TypeError(f"{path}: is a {what}; needed is a {type(template).__name__} of {len(template)}")
        for index, item in enumerate(template):
            yield from _match(item, given[index], f"{path}[{index}]")
    elif isinstance(given, torch.Tensor) or given != template:
        raise ValueError(f"{path}: {_show(given)} is given, but {template!r} is baked into the graph")


def _match_dict(template: dict[str, Any], given: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{path}: is a {type(given).__name__}, not a dict")
    for key in given.keys() - template.keys():
        raise TypeError(f"{path}: the graph takes no {key!r}; it takes {', '.join(map(str, template))}")
    for key, item in template.items():
        place = f"{path}.{key}" if path else key
        if key in given:
            yield from _match(item, given[key], place)
        elif missing := list(_slots(item)):
            raise TypeError(f"{place!r} is missing, for input {missing[0]!r}")


def _slots(template: Any) -> Iterator[str]:
    if isinstance(template, _Slot):
        yield template.name
    elif isinstance(template, dict | list | tuple):
        for item in template.values() if isinstance(template, dict) else template:
            yield from _slots(item)


def _require_tensor(name: str, item: Input, tensor: Any) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"input {name!r} is a {type(tensor).__name__}; give a torch.Tensor")
    wanted = getattr(torch, item.dtype.value)
    if tensor.dtype is not wanted:
        raise TypeError(f"input {name!r} is {_show(tensor)}; the graph takes {wanted}: convert with .to({wanted})")
    return tensor


def _check_sizes(model: ModelSpec, tensors: Mapping[str, torch.Tensor]) -> None:
    """Hold the shapes against the declared ones; one dim has one size in all inputs."""
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        shape = model.inputs[name].shape
        if tensor.ndim != len(shape):
            raise ValueError(f"input {name!r} has {tensor.ndim} axes; declared is {_show_shape(shape)}")
        for axis, size in zip(shape, tensor.shape, strict=True):
            if axis in model.dims:
                sizes.setdefault(axis, size)
    for name, tensor in tensors.items():
        shape = model.inputs[name].shape
        for axis, size in zip(shape, tensor.shape, strict=True):
            wanted = _size_of(axis, sizes)
            if wanted not in (None, size):
                at = ", ".join(f"{dim}={value}" for dim, value in sizes.items())
                declared = f"{_show_shape(shape)} at {at}" if at else _show_shape(shape)
                raise ValueError(f"input {name!r} is {list(tensor.shape)}; declared is {declared}")
    for dim, size in sizes.items():
        sizes_of = model.dims[dim]
        if size not in all_sizes(sizes_of):
            steps = f" in steps of {sizes_of.multiple_of}" if sizes_of.multiple_of > 1 else ""
            message = f"{dim} is {size}; declared, and tried, is {sizes_of.min} to {sizes_of.max}{steps}"
            warnings.warn(message, stacklevel=4)


def _size_of(axis: int | str, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate_axis(axis, sizes)
    except AxisError:
        # A dim that stands nowhere alone.
        return None


def _show(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


def _show_shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
