"""The original module run in float64: what its outputs would be with next to no rounding error.

Not for export, and no judge: `exporter.noise_floor` compares. The run is only worth something if nothing in it is
rounded to float32, but models ask for float32 inside (a normalization's `.float()`, a softmax's `dtype=`). So it runs
under a dispatch mode, which sees every operator that torch carries out, also those that Python code never names: what
asks for a narrower float gets float64, and what cannot be had in float64 ends the run.
"""

import copy
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.arguments import Call
from exporter.arrays import to_array
from exporter.device import HostMemory, Memory
from exporter.failures import one_line
from exporter.spec import NoiseFloor
from exporter.structures import open_dataclasses

__all__ = ["Float64Run"]

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
# Left to everything else that runs on the machine, or on the GPU.
_SPARE_BYTES = 128 * 2**20


class Float64Run:
    """A float64 copy of a module, made when it is first needed; the module itself is left as it is.

    Where there is no copy or no run, `reason` says why in one line, and the results of `run` are None.

    Args:
        module: The original, in eval mode.
        noise_floor: `off` makes every run None without a reason.
        memory: Where the module's tensors are; None is the machine's.
    """

    def __init__(self, module: nn.Module, noise_floor: NoiseFloor, memory: Memory | None = None) -> None:
        self._module = module
        self._memory = memory or HostMemory()
        self._is_on = noise_floor is NoiseFloor.auto
        self._copy: nn.Module | None = None
        self._base_bytes = 0
        self.reason = ""

    def run(self, call: Call, expected: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """The outputs in float64, in the order of PyTorch's own; None where they cannot be had.

        Args:
            call: Of `forward`; tensors may be nested.
            expected: What the module itself gave for them, which the run has to resemble.
        """
        if not self._is_on:
            return None
        try:
            self.reason = self._refuse(expected)
            if self.reason:
                return None
            found = self._call(call)
            self.reason = _misfit(expected, found)
        except Exception as error:  # noqa: BLE001  (the model's own code; without a float64 run the tolerance judges)
            self._is_on = False
            self.reason = one_line(f"the float64 run failed: {type(error).__name__}: {error}")
            return None
        return None if self.reason else found

    def _refuse(self, expected: Sequence[NDArray[Any]]) -> str:
        if not any(array.dtype == np.float32 for array in expected):
            return "no output is float32"
        if self._copy is None:
            needed = sum(tensor.nbytes * 2 for tensor in _unique_tensors(self._module))
            if (free := self._memory.read_free_bytes()) < needed + _SPARE_BYTES:
                return _describe_lack("a float64 copy of the weights", needed, free)
            self._copy = _copy_wide(self._module)
            self._base_bytes = self._memory.read_used_bytes()
        # What the float32 runs of this step took at their highest, and so at least half of what this one will.
        needed = 2 * max(0, self._memory.read_peak_bytes() - self._base_bytes)
        if (free := self._memory.read_free_bytes()) < needed + _SPARE_BYTES:
            return _describe_lack("the float64 run", needed, free)
        return ""

    def _call(self, call: Call) -> list[NDArray[Any]]:
        assert self._copy is not None
        # Clones, as for the module itself: a forward may write to its arguments.
        args, kwargs = pytree.tree_map_only(
            torch.Tensor, lambda tensor: _widen(tensor.clone()), (call.args, call.kwargs)
        )
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.no_grad(), warnings.catch_warnings(), _Widening():  # type: ignore[no-untyped-call]
                # The module's own warnings were heard when it ran in float32.
                warnings.simplefilter("ignore")
                returned = self._copy(*args, **kwargs)
        finally:
            torch.set_default_dtype(default)
        leaves = pytree.tree_leaves(open_dataclasses(returned))
        return [to_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]


class _Widening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands every operator float64 in place of narrower floats, as tensors and as dtypes asked for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for place, name in _written(func):
            written = args[place] if place < len(args) else kwargs.get(name)
            if isinstance(written, torch.Tensor) and written.dtype in _WIDE:
                # A widened stand-in would take what is written, and the tensor itself would miss it.
                raise TypeError(f"{func} writes to a {written.dtype} tensor that is neither parameter nor buffer")
        if func is torch.ops.aten.view.dtype:
            raise TypeError("it reads the bits of a tensor as another dtype")
        result = func(*_widen(args), **_widen(kwargs))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in _WIDE:
                raise TypeError(f"{func} computes in {leaf.dtype} only")
        return result


@functools.cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an operator writes to."""
    arguments = func._schema.arguments  # noqa: SLF001  (torch's own modes read it so)
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _widen(value: Any) -> Any:
    # Not pytree: this runs several times for each operator.
    if isinstance(value, torch.Tensor):
        wide = _WIDE.get(value.dtype)
        return value if wide is None else value.to(wide)
    if isinstance(value, torch.dtype):
        return _WIDE.get(value, value)
    if type(value) in (tuple, list):
        return type(value)(_widen(item) for item in value)
    if type(value) is dict:
        return {key: _widen(item) for key, item in value.items()}
    return value


def _unique_tensors(module: nn.Module) -> list[torch.Tensor]:
    return list({id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}.values())


def _copy_wide(module: nn.Module) -> nn.Module:
    """A deep copy with floats widened, which never holds the narrow ones a second time."""
    memo: dict[int, Any] = {}
    for tensor in _unique_tensors(module):
        if tensor.dtype in _WIDE:
            wide = _widen(tensor.detach())
            memo[id(tensor)] = nn.Parameter(wide, requires_grad=False) if isinstance(tensor, nn.Parameter) else wide
    return copy.deepcopy(module, memo)


def _misfit(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> str:
    if len(expected) != len(found):
        return f"the float64 run gives {len(found)} tensors, not {len(expected)}"
    for place, (narrow, wide) in enumerate(zip(expected, found, strict=True)):
        if narrow.shape != wide.shape or (narrow.dtype == np.float32) != (wide.dtype == np.float64):
            forms = " and ".join(f"{array.dtype}{list(array.shape)}" for array in (wide, narrow))
            return f"output {place} does not match in the float64 run and PyTorch's own: {forms}"
    return ""


def _describe_lack(what: str, needed: int, free: int) -> str:
    return f"{what} needs {needed / 2**20:.0f} MiB and room to spare; {free / 2**20:.0f} MiB are free"
