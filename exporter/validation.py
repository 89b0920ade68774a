"""Contradictions within a spec, found before anything is started.

Types and unknown keys are the schema's business (pipeline.config); whether `forward` agrees is found out later.
"""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from keyword import iskeyword
from typing import Any

from exporter.arguments import ArgumentError, nest
from exporter.axes import AxisError, evaluate_axis, names_in_axis
from exporter.cases import choose_cases
from exporter.errors import ConfigError
from exporter.fill_validation import find_fill_problems
from exporter.spec import Device, Dim, ExportOptions, ExportSpec, ModelSpec, PassName, Precision
from exporter.suggestion import suggest

__all__ = ["OPSET_RANGE", "PROVEN_OPSETS", "find_pass_problems", "find_problems", "require_valid"]

# What onnx 1.23 knows (onnx.defs.onnx_opset_version()); there is nothing else to ask for.
OPSET_RANGE = (1, 28)
# torch's lowerings target 18; onnxscript converts up to 25. Outside, the exporter may silently keep another opset, or
# label a graph with one that lacks its operators: such a file fails in check.
PROVEN_OPSETS = (18, 25)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# numpy's generator takes no more.
_MAX_SEED = 2**32
# Longer than any axis in memory, short of what Python cannot take the length of.
_MAX_SIZE = 2**40
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def require_valid(spec: ExportSpec, *, has_module: bool = False) -> None:
    """Raise if the spec contradicts itself.

    Args:
        spec: Any.
        has_module: The module exists already, so the spec need not say how to build it.

    Raises:
        ConfigError: With every problem on a line of its own.
    """
    problems = list(find_problems(spec, has_module=has_module))
    if problems:
        raise ConfigError("\n".join(problems))


def find_problems(spec: ExportSpec, *, has_module: bool = False) -> Iterator[str]:
    """Each problem as a line: the key, what is wrong with its value, and what is right."""
    found = False
    for problem in _find_spec_problems(spec, has_module=has_module):
        found = True
        yield problem
    if not found:
        # The cases take it that all else is right.
        yield from _find_case_problems(spec)


def _find_spec_problems(spec: ExportSpec, *, has_module: bool) -> Iterator[str]:
    for key, name in (("id", spec.id), ("model.name", spec.model.name)):
        if not _NAME.fullmatch(name):
            yield f"{key}: {name!r} must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"
    low, high = OPSET_RANGE
    if not low <= spec.export.opset_version <= high:
        yield f"export.opset_version: {spec.export.opset_version} is not within {low} to {high}"
    yield from find_pass_problems(spec.export.optimize)
    yield from _find_gate_problems(spec.precision)
    yield from _find_export_problems(spec.export)
    if spec.parity.max_input_elements < 1:
        yield f"parity.max_input_elements: {spec.parity.max_input_elements} must be at least 1"
    if not 1 <= spec.parity.max_noise_ratio < float("inf"):
        yield f"parity.max_noise_ratio: {spec.parity.max_noise_ratio} must be a number of at least 1"
    yield from _find_source_problems(spec.model.source, has_module=has_module)
    yield from _find_model_problems(spec.model)


def _find_gate_problems(precision: Precision) -> Iterator[str]:
    gates = {key: getattr(precision, key) for key in ("rtol", "atol", "max_rel_l2")}
    for key, value in gates.items():
        if value is not None and not 0 <= value < float("inf"):
            yield f"precision.{key}: {value} must be a number of at least 0"
    if all(value is None for value in gates.values()):
        yield "precision: rtol, atol and max_rel_l2 are all null, so that anything would pass; set at least one"


def _find_export_problems(export: ExportOptions) -> Iterator[str]:
    table = export.custom_translation_table
    if table is not None:
        if not isinstance(table.get("_target_"), str):
            yield "export.custom_translation_table: the key _target_ is missing: the dotted path of a function"
        yield from _find_nonfinite("export.custom_translation_table", table)
    if export.compare_torchscript and export.device is not Device.cpu:
        yield f"export.compare_torchscript: compares on the CPU alone; leave it out with export.device={export.device}"


def find_pass_problems(optimize: Any) -> Iterator[str]:
    """The same for a value of `export.optimize`."""
    place, known = "export.optimize", [member.value for member in PassName]
    if not isinstance(optimize, str | list):
        yield f"{place}: {optimize!r} is neither none, default nor a list of passes: {', '.join(known)}"
        return
    for name in [optimize] if isinstance(optimize, str) else optimize:
        if name == "none" and isinstance(optimize, list):
            yield f"{place}: none does not go into a list; write none alone, or the passes alone"
        elif name not in (*known, "none"):
            near = suggest(str(name), [*known, "none"])
            meant = f"did you mean {near!r}? " if near else ""
            yield f"{place}: there is no pass {name!r}; {meant}There are: none, {', '.join(known)}"


def _find_source_problems(source: dict[str, Any], *, has_module: bool) -> Iterator[str]:
    if "_target_" not in source and (source or not has_module):
        yield "model.source: the key _target_ is missing: the dotted path of the model's class"
    yield from _find_nonfinite("model.source", source)


def _find_model_problems(model: ModelSpec) -> Iterator[str]:
    for key in ("constants", "input_factory"):
        yield from _find_nonfinite(f"model.{key}", getattr(model, key))
    if not 0 <= model.seed < _MAX_SEED:
        yield f"model.seed: {model.seed} must be at least 0 and less than 2**32"
    yield from _find_hash_problems(model)
    if not model.inputs:
        yield "model.inputs: is empty; forward needs at least one tensor"
    yield from _find_dim_problems(model)
    yield from _find_argument_problems(model)
    used: set[str] = set()
    yield from _find_name_problems(model)
    for name, item in model.inputs.items():
        place = f"model.inputs.{name}"
        yield from _find_shape_problems(f"{place}.shape", item.shape, model)
        yield from find_fill_problems(f"{place}.fill", item.fill, item.dtype)
        used.update(_names_in_shape(item.shape))
    for name, output in model.outputs.items():
        if output.shape is not None:
            yield from _find_shape_problems(f"model.outputs.{name}.shape", output.shape, model)
    for name in model.dims:
        if name not in used:
            yield f"model.dims.{name}: no input's shape has this dim"


def _find_name_problems(model: ModelSpec) -> Iterator[str]:
    for kind, names in (("inputs", model.inputs), ("outputs", model.outputs)):
        # ONNX takes the empty name for "not given".
        yield from (
            f"model.{kind}: {name!r} is no name" for name in names if not name.strip() or not name.isprintable()
        )
    for name in model.outputs:
        if name in model.inputs:
            yield f"model.outputs.{name}: an input has the same name"


def _names_in_shape(shape: list[int | str]) -> Iterator[str]:
    for axis in shape:
        if isinstance(axis, str):
            with suppress(AxisError):
                yield from names_in_axis(axis)


def _find_hash_problems(model: ModelSpec) -> Iterator[str]:
    if model.weights_sha256 is None:
        return
    if not _SHA256.fullmatch(model.weights_sha256):
        yield f"model.weights_sha256: {model.weights_sha256!r} must be 64 hexadecimal digits, as sha256sum prints"
    if model.weights is None:
        yield "model.weights_sha256: there is no model.weights that could have it"


def _find_nonfinite(place: str, node: object) -> Iterator[str]:
    # JSON, in which specs travel, has no word for these.
    if isinstance(node, float) and not math.isfinite(node):
        yield f"{place}: {node} must be a finite number"
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from _find_nonfinite(f"{place}.{key}", child)


def _find_dim_problems(model: ModelSpec) -> Iterator[str]:
    for name, dim in model.dims.items():
        place = f"model.dims.{name}"
        if not name.isidentifier() or iskeyword(name):
            yield f"{place}: {name!r} must be a name of letters, digits and '_', not beginning with a digit"
            continue
        if dim.min < 0:
            yield f"{place}.min: {dim.min} must be at least 0"
        if dim.max >= _MAX_SIZE:
            yield f"{place}.max: {dim.max} must be less than 2**40"
            continue
        if dim.multiple_of < 1:
            yield f"{place}.multiple_of: {dim.multiple_of} must be at least 1"
            continue
        if dim.min >= dim.max:
            yield f"{place}: min {dim.min} must be less than max {dim.max}; a fixed size is a number in the shape"
        elif not dim.min <= dim.example <= dim.max:
            yield f"{place}.example: {dim.example} is not within min {dim.min} and max {dim.max}"
        for key in ("min", "max", "example"):
            if getattr(dim, key) % dim.multiple_of:
                yield f"{place}.{key}: {getattr(dim, key)} is no multiple of {dim.multiple_of}"


def _find_shape_problems(place: str, shape: list[int | str], model: ModelSpec) -> Iterator[str]:
    for axis in shape:
        if isinstance(axis, bool) or not isinstance(axis, int | str):
            yield f"{place}: {axis!r} is neither a whole number nor the name of a dim"
        elif isinstance(axis, int) and axis < 0:
            yield f"{place}: {axis} is negative"
        elif isinstance(axis, int) and axis >= _MAX_SIZE:
            yield f"{place}: {axis} is too long for an axis; it must be less than 2**40"
        elif isinstance(axis, str):
            yield from _find_axis_problems(place, axis, model)


def _find_axis_problems(place: str, axis: str, model: ModelSpec) -> Iterator[str]:
    try:
        names = names_in_axis(axis)
    except AxisError as error:
        yield f"{place}: {error}"
        return
    if not names:
        yield f"{place}: {axis!r} names no dim; write the number"
    unknown = [name for name in names if name not in model.dims]
    for name in unknown:
        near = suggest(name, model.dims)
        meant = f"did you mean {near!r}?" if near else f"declare it under model.dims ({', '.join(model.dims)})"
        yield f"{place}: dim {name!r} is not declared; {meant}"
    if names and not unknown:
        yield from _find_size_problems(place, axis, {name: model.dims[name] for name in names})


def _find_size_problems(place: str, axis: str, dims: dict[str, Dim]) -> Iterator[str]:
    """Arithmetic that gives no size somewhere in the dims' ranges; seen at their ends."""
    for key in ("min", "max"):
        sizes = {name: getattr(dim, key) for name, dim in dims.items()}
        try:
            size = evaluate_axis(axis, sizes)
        except AxisError as error:
            yield f"{place}: {error} where {key} is taken of each dim"
            return
        if size < 0:
            yield f"{place}: {axis!r} is {size} where {key} is taken of each dim"


def _find_case_problems(spec: ExportSpec) -> Iterator[str]:
    """Arithmetic that gives no size between the ends of the dims' ranges, in one of the cases."""
    place, hint = "model.inputs", "narrow the dims, or declare the size as a dim of its own"
    try:
        cases = choose_cases(spec)
    except AxisError as error:
        yield f"{place}: {error} within the ranges of its dims; {hint}"
        return
    for name, item in spec.model.inputs.items():
        for axis in (axis for axis in item.shape if isinstance(axis, str)):
            for case in cases:
                try:
                    size = evaluate_axis(axis, case.sizes)
                    problem = f"{axis!r} is {size}" if size < 0 else ""
                except AxisError as error:
                    problem = str(error)
                if problem:
                    at = ", ".join(f"{dim}={case.sizes[dim]}" for dim in names_in_axis(axis))
                    yield f"{place}.{name}.shape: {problem} at {at}; {hint}"
                    break


def _find_argument_problems(model: ModelSpec) -> Iterator[str]:
    try:
        nest(model, dict.fromkeys(model.inputs))
    except ArgumentError as error:
        yield f"model.inputs, model.constants: {error}"
    if model.input_factory is not None and "_target_" not in model.input_factory:
        yield "model.input_factory: the key _target_ is missing: the dotted path of a function"
    for kind, items in (("inputs", model.inputs), ("outputs", model.outputs)):
        for name, item in items.items():
            if item.repeat is not None:
                yield f"model.{kind}.{name}.repeat: call exporter.expand_repeats on the model first"
