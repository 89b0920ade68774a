"""Finds the first value at which ONNX Runtime parts from the captured program, in a few bounded windows.

Each value is compared after torch has computed it from ONNX Runtime's own values before it. So an error does not
travel: what a layer makes of a wrong input is right here, and rounding does not add up from layer to layer. What
remains is the error of one place, which is either rounding or a fault.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from exporter import arrays
from exporter.device import CPU_PROVIDERS
from exporter.intermediates import flatten_inputs, replay, run_graph, to_tensor
from exporter.trace import Trace

__all__ = ["PARTED", "Bisection", "Comparison", "measure"]

# An error of more than this many roundings (of the largest element) is no rounding. Over ten models of the zoo, three
# cases each, the most was 26; docs/divergence.md has the rest.
PARTED = 64.0

_MAX_SESSIONS = 4
_MAX_VALUES = 512
# Held of ONNX Runtime's values at a time.
_MAX_BYTES = 256 << 20
_MAX_SECONDS = 120.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """One value in torch and in ONNX Runtime, on ONNX Runtime's own values before it."""

    # In the saved graph, and in the captured program.
    value: str
    node: torch.fx.Node
    # Largest difference, in roundings of the largest element; infinite where shapes or NaN differ.
    roundings: float
    max_abs_diff: float | None = None
    # Difference over the largest magnitude.
    relative: float | None = None
    # At the worst element.
    expected: str = ""
    actual: str = ""

    @property
    def parts(self) -> bool:
        return self.roundings > PARTED


class Bisection:
    """The search on one case.

    Args:
        trace: Of the captured program.
        module: Gives the weights.
        path: The saved file.
        inputs: By name.
        feeds: The same, as the saved graph takes them.
        threads: Of an ONNX Runtime operator.
        providers: Of the session that missed parity.
    """

    def __init__(
        self,
        trace: Trace,
        module: nn.Module,
        path: Path,
        inputs: Mapping[str, torch.Tensor],
        feeds: Mapping[str, NDArray[Any]],
        threads: int,
        providers: Sequence[Any] = CPU_PROVIDERS,
    ) -> None:
        self._placeholders = trace.placeholders
        self._program, self._module, self._path = trace.program, module, path
        self._inputs, self._feeds, self._threads, self._providers = inputs, feeds, threads, providers
        self._names = {fx: value for value, fx in trace.nodes.items()}
        self._bytes: dict[str, int] = {}
        # Names of fx nodes, in the program's order.
        self._candidates: list[str] = []
        self._deadline = time.monotonic() + _MAX_SECONDS
        self.num_sessions = 0
        # The node of torch's at which NaN begins, or infinity where there is no NaN, and which of them.
        self.first_nonfinite: tuple[torch.fx.Node, str] | None = None
        self.compared: dict[str, Comparison] = {}

    def run_program(self) -> list[torch.Tensor]:
        """Run torch alone: what the captured program returns; the sizes of its values are noted on the way."""

        def note(node: torch.fx.Node, value: Any) -> Any:
            self._require_time()
            self._note_nonfinite(node, value)
            if node.name in self._names and _is_comparable(value):
                self._bytes[node.name] = value.nbytes if torch.is_tensor(value) else 8
            return value

        outputs = replay(
            self._program, self._module, flatten_inputs(self._program, self._placeholders, self._inputs), note
        )
        self._candidates = [name for name, size in self._bytes.items() if size <= _MAX_BYTES]
        return outputs

    @property
    def agreed(self) -> set[str]:
        """Names in the saved graph of the values that do not part."""
        return {one.value for one in self.compared.values() if not one.parts}

    def search(self) -> Comparison | None:
        """The first value that parts, or None; `run_program` comes before."""
        return self._search(0, len(self._candidates))

    def largest_before(self, found: Comparison | None) -> Comparison | None:
        """The largest error of those that do not part, among the values before one, or among all."""
        order = {name: index for index, name in enumerate(self._candidates)}
        end = len(order) if found is None else order[found.node.name]
        before = [one for one in self.compared.values() if order[one.node.name] < end and not one.parts]
        return max(before, key=lambda one: one.roundings, default=None)

    def _note_nonfinite(self, node: torch.fx.Node, value: Any) -> None:
        if not torch.is_tensor(value) or not value.is_floating_point():
            return
        has_nan = bool(value.isnan().any())
        if has_nan and (self.first_nonfinite is None or self.first_nonfinite[1] != "NaN"):
            self.first_nonfinite = node, "NaN"
        elif self.first_nonfinite is None and bool(value.isinf().any()):
            # Infinity alone may be right: masks are made of it.
            self.first_nonfinite = node, "infinity"

    def _search(self, low: int, high: int) -> Comparison | None:
        chosen = self._choose(low, high)
        found = dict(zip(chosen, self._compare(chosen, low), strict=True)) if chosen else {}
        previous = low - 1
        for index, comparison in found.items():
            if comparison is not None and comparison.parts:
                if index - previous == 1 or self.num_sessions >= _MAX_SESSIONS:
                    return comparison
                # Between two compared values rounding may grow: only a closer look can tell.
                nearer = self._search(previous + 1, index + 1)
                if nearer is not None:
                    return nearer
            previous = index
        return None

    def _choose(self, low: int, high: int) -> list[int]:
        """As many values as fit into a window, evenly spaced, the last one always."""
        number = min(high - low, _MAX_VALUES)
        while number > 0:
            chosen = sorted({high - 1 - (high - low) * step // number for step in range(number)})
            if sum(self._bytes[self._candidates[index]] for index in chosen) <= _MAX_BYTES:
                return chosen
            number //= 2
        return []

    def _compare(self, chosen: list[int], low: int) -> list[Comparison | None]:
        judged = {self._candidates[index]: index for index in chosen}
        anchors = self._find_anchors(low, max(chosen), judged)
        actual = self._fetch([*anchors, *judged])
        found: dict[int, Comparison] = {}

        def visit(node: torch.fx.Node, value: Any) -> Any:
            self._require_time()
            array = actual.pop(node.name, None)
            if array is None:
                return value
            if node.name in judged:
                comparison = measure(self._names[node.name], node, value, array)
                found[judged[node.name]] = self.compared[node.name] = comparison
            if not torch.is_tensor(value):
                return value
            anchored = to_tensor(array, value)
            return value if anchored is None else anchored

        replay(self._program, self._module, flatten_inputs(self._program, self._placeholders, self._inputs), visit)
        return [found.get(index) for index in chosen]

    def _fetch(self, names: list[str]) -> dict[str, NDArray[Any]]:
        self.num_sessions += 1
        graph = onnx.load(self._path, load_external_data=False)
        wanted = [self._names[name] for name in names]
        arrays = run_graph(self._path, graph, wanted, self._feeds, self._threads, self._providers)
        return {name: arrays[self._names[name]] for name in names}

    def _find_anchors(self, low: int, last: int, judged: Mapping[str, int]) -> list[str]:
        """Values before a window that its nodes read, as far as they fit beside it."""
        if low == 0:
            return []
        early = set(self._candidates[:low])
        position = {node.name: place for place, node in enumerate(self._program.graph.nodes)}
        start, end = position[self._candidates[low - 1]], position[self._candidates[last]]
        room = _MAX_BYTES - sum(self._bytes[name] for name in judged)
        anchors: list[str] = []
        pending = [node for node in self._program.graph.nodes if start < position[node.name] <= end]
        seen = {node.name for node in pending}
        while pending:
            for operand in pending.pop().all_input_nodes:
                if operand.name in seen:
                    continue
                seen.add(operand.name)
                if operand.name in early and self._bytes[operand.name] <= room:
                    room -= self._bytes[operand.name]
                    anchors.append(operand.name)
                else:
                    pending.append(operand)
        return anchors

    def _require_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"not finished after {_MAX_SECONDS:g} s")


def measure(name: str, node: torch.fx.Node, expected: Any, actual: NDArray[Any]) -> Comparison:
    """Compare one value; pieces of it are widened at a time, never the whole."""
    tensor = expected.detach() if torch.is_tensor(expected) else torch.tensor(expected)
    if tuple(tensor.shape) != actual.shape:
        shapes = (
            f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}",
            f"{actual.dtype}{list(actual.shape)}",
        )
        return Comparison(name, node, float("inf"), expected=shapes[0], actual=shapes[1])
    worst = largest = 0.0
    where = (0, False)
    flat, other = tensor.reshape(-1), arrays.to_tensor(actual).reshape(-1)
    for start, one, two in _pieces(flat, other):
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.abs(one - two)
        # Equal infinities and NaN for NaN are no difference.
        difference[(one == two) | (np.isnan(one) & np.isnan(two))] = 0.0
        difference[np.isnan(difference)] = np.inf
        place = int(difference.argmax())
        if difference[place] > worst:
            worst, where = float(difference[place]), (start + place, True)
        magnitude = np.abs(one[np.isfinite(one)])
        largest = max(largest, float(magnitude.max(initial=0.0)))
    if not where[1]:
        return Comparison(name, node, 0.0, 0.0, 0.0)
    values = [_show(array[where[0]].item()) for array in (flat, other)]
    if not np.isfinite(worst) or not tensor.is_floating_point() or not other.is_floating_point():
        return Comparison(name, node, float("inf"), worst if np.isfinite(worst) else None, None, *values)
    # A value that is zero throughout has no scale but the other's.
    relative = worst / (largest or worst)
    unit = max(torch.finfo(tensor.dtype).eps, torch.finfo(other.dtype).eps)
    return Comparison(name, node, relative / unit, worst, relative, *values)


def _pieces(one: torch.Tensor, two: torch.Tensor) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    for start in range(0, len(two), _CHUNK):
        wide, other = (flat[start : start + _CHUNK].to("cpu", torch.float64).numpy() for flat in (one, two))
        yield start, wide, other


def _show(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _is_comparable(value: Any) -> bool:
    if torch.is_tensor(value):
        # ONNX Runtime has no complex tensors on the CPU.
        return not value.is_complex() and value.layout is torch.strided
    return isinstance(value, bool | int | float)
