"""Test inputs: tensors made from a spec's declarations and a case's sizes."""

import zlib

import torch

from exporter.cases import Case, resolve_shape
from exporter.spec import FillKind, Input, ModelSpec

__all__ = ["make_inputs"]


def make_inputs(model: ModelSpec, case: Case) -> dict[str, torch.Tensor]:
    """The arguments of `forward` for one case, by name and in declared order.

    Each input has a generator of its own, seeded by the case and the input's name, so that adding an input
    does not change the others. They are drawn on the CPU, in float32 or int64, and cast.
    """
    return {name: _make_tensor(spec, case, _seed(case, name)) for name, spec in model.inputs.items()}


def _seed(case: Case, name: str) -> int:
    # 32 bits: torch's generator on the CPU uses no more of a seed.
    return zlib.crc32(f"{case.seed}:{name}".encode())


def _make_tensor(spec: Input, case: Case, seed: int) -> torch.Tensor:
    shape = resolve_shape(spec.shape, case.sizes)
    dtype: torch.dtype = getattr(torch, spec.dtype.value)
    generator = torch.Generator().manual_seed(seed)
    fill = spec.fill
    match fill.kind:
        case FillKind.normal:
            return torch.randn(shape, generator=generator).to(dtype)
        case FillKind.uniform:
            return torch.rand(shape, generator=generator).mul(fill.high - fill.low).add(fill.low).to(dtype)
        case FillKind.randint:
            return torch.randint(int(fill.low), int(fill.high), shape, generator=generator).to(dtype)
        case FillKind.arange:
            # Counts along the last axis: 0, 1, 2, ... in every row.
            return torch.arange(shape[-1]).expand(shape).clone().to(dtype) if shape else torch.zeros((), dtype=dtype)
        case FillKind.ones:
            return torch.ones(shape, dtype=dtype)
        case FillKind.zeros:
            return torch.zeros(shape, dtype=dtype)
        case FillKind.constant:
            return torch.full(shape, fill.value, dtype=torch.float64).to(dtype)
