"""Test inputs: tensors made from a spec's declarations and a case's sizes."""

import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from exporter.build import construct
from exporter.cases import Case, describe_sizes, resolve_shape
from exporter.errors import FailureKind, StepError
from exporter.spec import Device, Fill, FillKind, Input, ModelSpec
from exporter.suggestion import suggest

__all__ = ["make_inputs"]


def make_inputs(model: ModelSpec, case: Case, device: Device = Device.cpu) -> dict[str, torch.Tensor]:
    """One tensor for each input of a case, by name and in declared order.

    Each input has a generator of its own, seeded by the case and the input's name, so that adding an input
    does not change the others. They are drawn on the CPU, in float32 or int64, cast, and then moved to the device.

    Raises:
        StepError: A file or the input factory does not give what is declared.
    """
    made = _call_factory(model, case) if model.input_factory is not None else {}
    return {
        name: (made[name] if name in made else _make_tensor(name, item, case, _seed(case, name))).to(device.value)
        for name, item in model.inputs.items()
    }


def _seed(case: Case, name: str) -> int:
    # 32 bits: torch's generator on the CPU uses no more of a seed.
    return zlib.crc32(f"{case.seed}:{name}".encode())


def _make_tensor(name: str, item: Input, case: Case, seed: int) -> torch.Tensor:
    shape = resolve_shape(item.shape, case.sizes)
    dtype: torch.dtype = getattr(torch, item.dtype.value)
    generator = torch.Generator().manual_seed(seed)
    fill = item.fill

    match fill.kind:
        case FillKind.normal | FillKind.uniform:
            return _draw(fill, shape, generator, is_complex=dtype.is_complex).to(dtype)
        case FillKind.randint:
            return torch.randint(int(fill.low), int(fill.high), shape, generator=generator).to(dtype)
        case FillKind.arange:
            # Counts along the last axis: 0, 1, 2, ... in every row.
            return torch.arange(shape[-1]).expand(shape).clone().to(dtype) if shape else torch.zeros((), dtype=dtype)
        case FillKind.ones | FillKind.zeros | FillKind.constant:
            value = {FillKind.ones: 1.0, FillKind.zeros: 0.0}.get(fill.kind, fill.value)
            return torch.full(shape, value, dtype=torch.float64).to(dtype)
        case FillKind.file:
            return _cast(name, fill, _fit(name, fill, _read_file(name, fill), shape), dtype)


def _draw(fill: Fill, shape: tuple[int, ...], generator: torch.Generator, *, is_complex: bool) -> torch.Tensor:
    if is_complex:
        parts = (_draw(fill, shape, generator, is_complex=False) for _ in range(2))
        return torch.complex(*parts)
    if fill.kind is FillKind.normal:
        return torch.randn(shape, generator=generator)
    return torch.rand(shape, generator=generator).mul(fill.high - fill.low).add(fill.low)


def _read_file(name: str, fill: Fill) -> torch.Tensor:
    path = Path(fill.path or "")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(_choose_key(name, fill, list(file.keys())))  # type: ignore[no-any-return]
        # Without pickle: reading data never runs code.
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return torch.from_numpy(loaded[_choose_key(name, fill, loaded.files)])
        return torch.from_numpy(loaded)
    except StepError:
        raise
    except Exception as error:
        raise StepError(FailureKind.input_error, f"input {name!r}, {path}: {type(error).__name__}: {error}") from error


def _choose_key(name: str, fill: Fill, keys: list[str]) -> str:
    wanted = fill.key or (keys[0] if len(keys) == 1 else name)
    if wanted not in keys:
        raise StepError(
            FailureKind.input_error,
            f"input {name!r}: {fill.path} has no {wanted!r}; it has {', '.join(sorted(keys)[:8])}",
            "name one of them with fill.key",
        )
    return wanted


def _fit(name: str, fill: Fill, data: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The data repeated or cut to a shape, axis by axis from the first element on."""
    if data.ndim != len(shape) or (data.numel() == 0 and 0 not in shape):
        raise StepError(
            FailureKind.input_error,
            f"input {name!r}: {fill.path} has shape {list(data.shape)}, needed is {list(shape)}",
        )
    for axis, size in enumerate(shape):
        if data.shape[axis] != size:
            data = data.index_select(axis, torch.arange(size) % max(1, data.shape[axis]))
    return data.contiguous()


def _cast(name: str, fill: Fill, data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The data in the declared dtype; floats may be rounded, and nothing else may change."""
    cast = data.real.to(dtype) if data.is_complex() and not dtype.is_complex else data.to(dtype)
    if (
        (dtype.is_floating_point and not data.is_complex())
        or dtype.is_complex
        or torch.equal(cast.to(data.dtype), data)
    ):
        return cast
    raise StepError(
        FailureKind.input_error,
        f"input {name!r}: {fill.path} is {data.dtype}, declared is {dtype}, which does not hold its values",
    )


def _call_factory(model: ModelSpec, case: Case) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(_seed(case, ""))
    node = {**(model.input_factory or {}), "sizes": dict(case.sizes), "generator": generator}
    try:
        made = construct(node)
    except StepError:
        raise
    except Exception as error:
        raise StepError(FailureKind.input_error, f"model.input_factory: {type(error).__name__}: {error}") from error
    if not isinstance(made, dict):
        raise StepError(FailureKind.input_error, f"model.input_factory returns a {type(made).__name__}, not a dict")
    for name, tensor in made.items():
        _require_declared(model, case, name, tensor)
    # Memory of their own: of two inputs that share a tensor, capture sees one. Laid out as a caller's tensors are.
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in made.items()}


def _require_declared(model: ModelSpec, case: Case, name: str, tensor: object) -> None:
    if name not in model.inputs:
        near = suggest(str(name), model.inputs)
        hint = f"did you mean {near!r}?" if near else ""
        raise StepError(FailureKind.input_error, f"model.input_factory returns {name!r}, which is no input", hint)
    item = model.inputs[name]
    shape, dtype = resolve_shape(item.shape, case.sizes), getattr(torch, item.dtype.value)
    if not isinstance(tensor, torch.Tensor):
        raise StepError(
            FailureKind.input_error, f"model.input_factory: {name!r} is a {type(tensor).__name__}, no tensor"
        )
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise StepError(
            FailureKind.input_error,
            f"model.input_factory: {name!r} is a {tensor.layout} tensor on {tensor.device}, not a dense one on the CPU",
        )
    if tensor.dtype is not dtype or tuple(tensor.shape) != shape:
        raise StepError(
            FailureKind.input_error,
            f"model.input_factory: {name!r} is {tensor.dtype}{list(tensor.shape)}, declared is {dtype}{list(shape)} at "
            f"{describe_sizes(case.sizes)}",
        )
