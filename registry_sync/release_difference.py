"""One model in two releases: what changed, and which changes are beyond the budget."""

import math
from collections.abc import Iterator

from exporter.evidence import DimRecord
from exporter.pages.formats import say_bytes, say_growth, say_number, say_seconds
from exporter.result import TensorRecord
from registry_sync.release_manifest import Change, ReleasedModel
from registry_sync.release_options import ReleaseBudgets

__all__ = ["compare_models", "describe_tensor"]

# Less than this comes and goes by itself and is not worth a line, unless a budget is exceeded.
_MEMORY_SHARE = 0.1
_LATENCY_FACTOR = 1.5
_PARITY_FACTOR = 2.0
_MAX_OPS = 8
_MIB = 2**20


def compare_models(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> list[Change]:
    """The differences in the order of their weight; both have passed."""
    return [
        *_compare_signatures(before, after, budgets),
        *_compare_dims(before, after, budgets),
        *_compare_opsets(before, after, budgets),
        *_compare_ops(before, after, budgets),
        *_compare_parity(before, after, budgets),
        *_compare_memory(before, after, budgets),
        *_compare_latency(before, after, budgets),
        *_compare_size(before, after, budgets),
    ]


def describe_tensor(tensor: TensorRecord) -> str:
    """`x: float32[batch, 8]`."""
    return f"{tensor.name}: {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _compare_signatures(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    exceeded = "" if budgets.may_change_signature else "may not change"
    for side in ("inputs", "outputs"):
        old = [describe_tensor(tensor) for tensor in getattr(before, side)]
        new = [describe_tensor(tensor) for tensor in getattr(after, side)]
        if old == new:
            continue
        gone, come = [text for text in old if text not in new], [text for text in new if text not in old]
        if not gone and not come:
            # Names in another order.
            gone, come = old, new
        yield Change(
            what="signature",
            before="; ".join(gone) or f"{len(old)} {side}",
            after="; ".join(come) or f"{len(new)} {side}",
            exceeded=exceeded,
        )
    if before.precision != after.precision:
        yield Change(what="precision", before=before.precision, after=after.precision, exceeded=exceeded)


def _compare_dims(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    new = {dim.name: dim for dim in after.dims}
    for dim in before.dims:
        now = new.pop(dim.name, None)
        old_range, new_range = _read_range(dim), _read_range(now) if now is not None else None
        if old_range == new_range:
            continue
        is_narrower = new_range is None or new_range[0] > old_range[0] or new_range[1] < old_range[1]
        yield Change(
            what="dims",
            before=_describe_range(dim.name, old_range),
            after=_describe_range(dim.name, new_range) if new_range is not None else f"no {dim.name}",
            exceeded="may not hold for fewer sizes" if is_narrower and not budgets.may_narrow_dims else "",
        )
    for dim in new.values():
        yield Change(what="dims", before=f"no {dim.name}", after=_describe_range(dim.name, _read_range(dim)))


def _read_range(dim: DimRecord) -> tuple[int, int]:
    """The sizes between the least and the largest at which parity held; as declared where none was tried."""
    sizes = dim.proven_sizes or [dim.min, dim.max]
    return min(sizes), max(sizes)


def _describe_range(name: str, sizes: tuple[int, int]) -> str:
    return f"{name} {sizes[0]} to {sizes[1]}"


def _compare_opsets(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    if before.opset_version != after.opset_version:
        exceeded = "" if budgets.may_change_opset else "may not change"
        yield Change(what="opset", before=str(before.opset_version), after=str(after.opset_version), exceeded=exceeded)


def _compare_ops(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    names = sorted(before.op_counts.keys() | after.op_counts.keys())
    moved = {name: after.op_counts.get(name, 0) - before.op_counts.get(name, 0) for name in names}
    moved = {name: count for name, count in moved.items() if count}
    if not moved:
        return
    total = sum(before.op_counts.values())
    num_moved = sum(map(abs, moved.values()))
    percent = 100 * num_moved / total if total else float("inf")
    limit = budgets.max_op_change_percent
    shown = [f"{name} {count:+,}" for name, count in sorted(moved.items(), key=lambda one: -abs(one[1]))]
    more = f" and {len(shown) - _MAX_OPS} more" if len(shown) > _MAX_OPS else ""
    yield Change(
        what="ops",
        before=f"{total:,} nodes",
        after=f"{sum(after.op_counts.values()):,} nodes: {', '.join(shown[:_MAX_OPS])}{more}",
        exceeded=f"{say_number(percent)} % of the nodes, allowed are {limit:g} %" if _is_over(percent, limit) else "",
    )


def _compare_parity(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    old, new = before.parity, after.parity
    if old.max_noise_ratio is not None and new.max_noise_ratio is not None:
        name, lowest, values = "noise ratio", 1.0, (old.max_noise_ratio, new.max_noise_ratio)
    elif old.max_abs_diff is not None and new.max_abs_diff is not None:
        # Never zero: it divides.
        name, lowest, values = "max_abs_diff", max(new.atol or 0.0, 1e-12), (old.max_abs_diff, new.max_abs_diff)
    else:
        return
    factor = max(values[1], lowest) / max(values[0], lowest)
    limit = budgets.max_parity_factor
    if 1 / _PARITY_FACTOR < factor < _PARITY_FACTOR and not _is_over(factor, limit):
        return
    yield Change(
        what="parity",
        before=f"{name} {say_number(values[0])}",
        after=f"{name} {say_number(values[1])}",
        exceeded=f"x{say_number(factor)}, allowed is x{limit:g}" if _is_over(factor, limit) else "",
    )


def _compare_memory(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    old, new = before.measured.export_peak_bytes, after.measured.export_peak_bytes
    if old is None or new is None:
        return
    percent = _growth_percent(old, new)
    limit = budgets.max_memory_growth_percent
    is_over = _is_over(percent, limit) and new - old > budgets.memory_slack_mib * _MIB
    if is_over or abs(percent) >= 100 * _MEMORY_SHARE:
        exceeded = f"{_describe_growth(old, new)}, allowed is {limit:+g} %" if is_over else ""
        yield Change(what="memory", before=say_bytes(old), after=say_bytes(new), exceeded=exceeded)


def _compare_latency(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    old, new = before.measured.latency_s, after.measured.latency_s
    if not old or not new:
        return
    factor = new / old
    limit = budgets.max_latency_factor
    is_over = _is_over(factor, limit) and new - old > budgets.latency_slack_s
    if is_over or not 1 / _LATENCY_FACTOR < factor < _LATENCY_FACTOR:
        exceeded = f"x{say_number(factor)}, allowed is x{limit:g}" if is_over else ""
        yield Change(what="latency", before=say_seconds(old), after=say_seconds(new), exceeded=exceeded)


def _compare_size(before: ReleasedModel, after: ReleasedModel, budgets: ReleaseBudgets) -> Iterator[Change]:
    old, new = before.measured.size_bytes, after.measured.size_bytes
    if old == new:
        return
    percent = _growth_percent(old, new)
    limit = budgets.max_size_change_percent
    exceeded = (
        f"{_describe_growth(old, new, places=1)}, allowed are {limit:g} %" if _is_over(abs(percent), limit) else ""
    )
    texts = say_bytes(old), say_bytes(new)
    if texts[0] == texts[1]:
        texts = f"{old:,} B", f"{new:,} B"
    yield Change(what="size", before=texts[0], after=texts[1], exceeded=exceeded)


def _growth_percent(old: float, new: float) -> float:
    return 100 * (new / old - 1) if old else (float("inf") if new else 0.0)


def _describe_growth(old: float, new: float, places: int = 0) -> str:
    return say_growth(new, old, places) if old else "from nothing"


def _is_over(value: float, limit: float | None) -> bool:
    # What is the limit but for rounding is within it: 1050 / 1000 - 1 is more than 0.05.
    return limit is not None and value > limit and not math.isclose(value, limit)
