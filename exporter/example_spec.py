"""A spec from a module and example arguments, so that a notebook need not declare what the tensors already say.

torch is not imported at module level: `import exporter` must not load it.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.axes import AxisError, names_in_axis
from exporter.errors import ConfigError
from exporter.spec import Dim, DType, ExportOptions, ExportSpec, Fill, FillKind, Input, ModelSpec, Output, Precision
from exporter.suggestion import suggest
from exporter.validation import require_valid

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["make_spec"]

_FLOATS = ("float", "bfloat", "complex")
# Whole numbers up to here are exact in the spec's floats.
_MAX_WHOLE = 2**53 - 1
# Of an argument's value, where torch's dynamic_shapes says nothing.
_STATIC = None


def make_spec(
    module: "nn.Module",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    dims: Mapping[str, Dim] | None = None,
    fills: Mapping[str, Fill] | None = None,
    outputs: Mapping[str, Output] | Sequence[str] = (),
    name: str = "",
    precision: Precision | None = None,
    export: ExportOptions | None = None,
) -> ExportSpec:
    """Write the spec that exports a module as it is called in an example; change in it what you like.

    Inputs are named after the arguments of `forward`, nested ones after their place (`state[0]`: `state_0`); None,
    numbers and strings become constants. Of the tensors, dtype and shape are taken, and of whole numbers the range
    they are in; values are drawn anew for each case.

    Args:
        module: Only looked at; hand it to `export` afterwards.
        args: The example's arguments by position, as in `torch.onnx.export`.
        kwargs: The same by name.
        dynamic_shapes: As torch takes them, with names in place of `Dim` objects: `{"x": {0: "batch"}}` or
            `{"x": ["batch", None]}`, nested as the argument is. What is not mentioned is fixed.
        dims: The range of each name. One that is missing goes from 1 to twice the size in the example.
        fills: How an input's values are drawn, by the input's name. Otherwise floats are normal, whole numbers
            uniform within the range that the example has.
        outputs: Their names, in order; or each with its `Output`.
        name: Of the model and the export; the class's name otherwise.
        precision: Plain float32 otherwise.
        export: Opset, passes and so on.

    Raises:
        ConfigError: An argument is of a kind that a graph cannot take, or `dynamic_shapes` does not fit the example.
    """
    found = _Found()
    bound = _bind(module, args, kwargs or {})
    given = _by_name(dynamic_shapes, list(bound))
    for key in given:
        if key not in bound:
            raise ConfigError(f"dynamic_shapes: {key!r} is no argument in the example{_meant(key, bound)}")
    for argument, value in bound.items():
        _collect(found, argument, value, given.get(argument, _STATIC))
    for key, fill in (fills or {}).items():
        if key not in found.inputs:
            raise ConfigError(f"fills: {key!r} is no input{_meant(key, found.inputs)}")
        found.inputs[key].fill = fill
    named = outputs if isinstance(outputs, Mapping) else {one: Output() for one in outputs}
    chosen = name or re.sub(r"[^A-Za-z0-9._-]", "_", type(module).__name__).strip("._-") or "model"
    model = ModelSpec(
        name=chosen,
        inputs=found.inputs,
        dims=_choose_dims(found.sizes, dims or {}),
        constants=found.constants,
        outputs=dict(named),
    )
    spec = ExportSpec(id=chosen, model=model, precision=precision or Precision(), export=export or ExportOptions())
    require_valid(spec, has_module=True)
    return spec


@dataclass
class _Found:
    """What the example's arguments come to."""

    inputs: dict[str, Input] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    # Of each name in dynamic_shapes, in the example; None where it stands in arithmetic only.
    sizes: dict[str, int | None] = field(default_factory=dict)


def _bind(module: "nn.Module", args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The example's values by the names of the arguments of forward."""
    signature = inspect.signature(module.forward)
    if not isinstance(args, tuple | list):
        raise ConfigError(f"args: is a {type(args).__name__}; give a tuple: ({', '.join(signature.parameters)},)")
    try:
        bound = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise ConfigError(f"forward({', '.join(signature.parameters)}): {error}") from None
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(bound.pop(name, {}))
    return bound


def _by_name(dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None, names: list[str]) -> dict[str, Any]:
    if dynamic_shapes is None or isinstance(dynamic_shapes, Mapping):
        return dict(dynamic_shapes or {})
    if len(dynamic_shapes) != len(names):
        raise ConfigError(f"dynamic_shapes: has {len(dynamic_shapes)} entries for {len(names)} arguments")
    return dict(zip(names, dynamic_shapes, strict=True))


def _collect(found: _Found, path: str, value: Any, shapes: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        _add_input(found, path, value, shapes)
    elif type(value) is dict and value:
        _collect_dict(found, path, value, _as_mapping(path, shapes, value))
    elif type(value) in (list, tuple) and value:
        _collect_items(found, path, value, shapes)
    elif value is None or isinstance(value, bool | int | float | str):
        found.constants[path] = value
    else:
        raise ConfigError(
            f"{path}: a {type(value).__name__} is neither a tensor, a number, a string, None, nor a list, tuple or "
            "dict of such; leave it out, or wrap the module"
        )


def _collect_dict(found: _Found, path: str, value: dict[Any, Any], shapes: dict[Any, Any]) -> None:
    for key, item in value.items():
        if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
            raise ConfigError(f"{path}: the key {key!r} must be of letters, digits and '_'")
        _collect(found, f"{path}.{key}", item, shapes.get(key, _STATIC))


def _collect_items(found: _Found, path: str, value: Sequence[Any], shapes: Any) -> None:
    if shapes is not None and (not isinstance(shapes, list | tuple) or len(shapes) != len(value)):
        raise ConfigError(f"dynamic_shapes: {path} is a {type(value).__name__} of {len(value)}; give as many entries")
    opening, closing = "[]" if isinstance(value, list) else "()"
    for index, item in enumerate(value):
        _collect(found, f"{path}{opening}{index}{closing}", item, shapes[index] if shapes is not None else _STATIC)


def _as_mapping(path: str, shapes: Any, value: Mapping[Any, Any]) -> dict[Any, Any]:
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        raise ConfigError(f"dynamic_shapes: {path} is a dict; give a dict")
    for key in shapes:
        if key not in value:
            raise ConfigError(f"dynamic_shapes: {path} has no {key!r} in the example{_meant(str(key), value)}")
    return dict(shapes)


def _add_input(found: _Found, path: str, tensor: "torch.Tensor", shapes: Any) -> None:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DType.__members__:
        raise ConfigError(f"{path}: ONNX Runtime takes no {dtype}; there are {', '.join(DType.__members__)}")
    shape: list[int | str] = list(tensor.shape)
    for axis, dim in _dynamic_axes(path, tensor, shapes):
        shape[axis] = dim
        _note_size(found, path, dim, tensor.shape[axis])
    name = "_".join(re.findall(r"\w+", path))
    if name in found.inputs:
        raise ConfigError(f"{path} and {found.inputs[name].argument or name} come to one name, {name!r}: write a spec")
    argument = path if path != name else None
    found.inputs[name] = Input(shape=list(shape), dtype=DType(dtype), fill=_choose_fill(tensor), argument=argument)


def _dynamic_axes(path: str, tensor: "torch.Tensor", shapes: Any) -> Iterator[tuple[int, str]]:
    if isinstance(shapes, list | tuple):
        if len(shapes) != tensor.ndim:
            raise ConfigError(f"dynamic_shapes: {path} has {tensor.ndim} axes, and {len(shapes)} are given")
        shapes = dict(enumerate(shapes))
    if not isinstance(shapes, Mapping | None):
        raise ConfigError(f"dynamic_shapes: {path} is a tensor; give {{0: 'batch'}} or ['batch', None]")
    for axis, dim in (shapes or {}).items():
        if not isinstance(axis, int) or not 0 <= axis < tensor.ndim:
            raise ConfigError(f"dynamic_shapes: {path} has no axis {axis!r}; it has {tensor.ndim}")
        if isinstance(dim, str):
            yield axis, dim
        elif dim is not None and dim != tensor.shape[axis]:
            raise ConfigError(
                f"dynamic_shapes: {path}, axis {axis}: {dim!r} is neither a name nor None; a range goes into dims"
            )


def _note_size(found: _Found, path: str, dim: str, size: int) -> None:
    try:
        names = names_in_axis(dim)
    except AxisError as error:
        raise ConfigError(f"dynamic_shapes: {path}: {error}") from error
    for one in names:
        found.sizes.setdefault(one, None)
    if names == [dim]:
        if found.sizes[dim] not in (None, size):
            raise ConfigError(
                f"dynamic_shapes: {dim!r} is {found.sizes[dim]} before, and {size} in {path}: one name is one size"
            )
        found.sizes[dim] = size


def _choose_dims(sizes: Mapping[str, int | None], dims: Mapping[str, Dim]) -> dict[str, Dim]:
    for name in dims:
        if name not in sizes:
            raise ConfigError(f"dims: {name!r} is not in dynamic_shapes{_meant(name, sizes)}")
    chosen: dict[str, Dim] = {}
    for name, size in sizes.items():
        if name in dims:
            chosen[name] = dims[name]
        elif size is None:
            raise ConfigError(f"dims: {name!r} stands in arithmetic only; give its range")
        else:
            # Not captured at 0 or 1, which torch takes for fixed sizes.
            chosen[name] = Dim(min=min(1, size), max=max(4, 2 * size), example=max(2, size))
    return chosen


def _choose_fill(tensor: "torch.Tensor") -> Fill:
    if str(tensor.dtype).removeprefix("torch.").startswith(_FLOATS):
        return Fill()
    if tensor.is_meta or not tensor.numel():
        return Fill(kind=FillKind.zeros)
    if str(tensor.dtype) == "torch.bool":
        return Fill(kind=FillKind.randint, low=0, high=2)
    values = tensor.detach().cpu().numpy()
    low, high = (max(-_MAX_WHOLE, min(_MAX_WHOLE, int(value))) for value in (values.min(), values.max()))
    return Fill(kind=FillKind.randint, low=low, high=high + 1)


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = suggest(name, known)
    return f"; did you mean {near!r}?" if near else ""
