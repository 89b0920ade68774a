"""What changed of an export since the batch or release that it is compared with, in words for a reviewer's table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from exporter.pages.formats import say_bytes, say_growth, say_number
from exporter.plain_data import DataError
from registry_sync.record import GOOD, BatchRecord, ExportRecord, Outcome, RunDirectory

__all__ = ["Baseline", "Change", "Reading", "describe_change", "find_earlier_batch", "list_changes", "read_export"]

# Less than this comes and goes by itself: memory by the allocator, time by whatever else the machine does.
_MEMORY_SHARE = 0.1
_TIME_SHARE = 0.5
# What is less of a size than this is told in bytes.
_SIZE_SHARE = 0.001
# A difference moves with the order of summation; by this factor it is worth a look.
_DIFF_FACTOR = 2.0
# Further back a name has most likely meant something else.
_MAX_BATCHES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is compared of an export."""

    outcome: Outcome
    max_abs_diff: float | None = None
    max_limit_share: float | None = None
    max_noise_ratio: float | None = None
    export_peak_bytes: float | None = None
    size_bytes: float | None = None
    num_nodes: float | None = None
    duration_s: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A number that is worth a look now, beside what it was."""

    # Of the field of `Reading`, and what it is called in words; empty for what another one tells, too.
    field: str
    name: str
    # `+12 %`, `x4` or `-3`.
    text: str
    is_more: bool


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a batch is compared with: exports by their ids, as they were."""

    # What it was: `release zoo-2026.11.23`, or `batch 20261123-020000-1a2b`.
    title: str
    exports: Mapping[str, Reading] = field(default_factory=dict)
    # Of an export whose reading is from another one than the title's: which.
    others: Mapping[str, str] = field(default_factory=dict)

    def describe_change(self, export: ExportRecord) -> str:
        """What changed of an export, in words; empty where nothing can be said."""
        return describe_change(read_export(export), self.exports.get(export.id))


def read_export(export: ExportRecord) -> Reading:
    """The reading in a batch's summary."""
    return Reading(
        outcome=export.outcome,
        max_abs_diff=export.max_abs_diff,
        max_limit_share=export.max_limit_share,
        max_noise_ratio=export.max_noise_ratio,
        export_peak_bytes=export.export_peak_bytes,
        size_bytes=export.size_bytes or None,
        num_nodes=export.num_nodes or None,
        duration_s=export.duration_s or None,
        latency_s=export.latency_s,
    )


def find_earlier_batch(run: RunDirectory, record: BatchRecord) -> Baseline | None:
    """The last batch of that name whose record lies beside this one's."""
    # Run ids begin with the time.
    earlier = sorted((path for path in run.path.parent.glob("*") if path.name < record.run_id), reverse=True)
    for path in earlier[:_MAX_BATCHES]:
        try:
            other = RunDirectory(path).read_summary()
        except (OSError, DataError):
            # Killed before its end, or of another version: none to compare with.
            continue
        if (other.name, other.release) == (record.name, record.release):
            readings = {one.id: read_export(one) for one in other.exports if one.outcome is not Outcome.cancelled}
            return Baseline(title=f"batch {other.run_id}", exports=readings)
    return None


def describe_change(now: Reading, before: Reading | None) -> str:
    """A few words: `size +12 %, peak -30 %`, `failed before`, `as before`, or `first time`."""
    if now.outcome is Outcome.cancelled:
        return ""
    if before is None:
        return "first time"
    if now.outcome in GOOD and before.outcome in GOOD:
        changes = [f"{change.name} {change.text}" for change in list_changes(now, before) if change.name]
        return ", ".join(changes) or "as before"
    if (now.outcome in GOOD) == (before.outcome in GOOD) and now.outcome is before.outcome:
        return "as before"
    return f"{before.outcome.words if before.outcome not in GOOD else 'passed'} before"


def list_changes(now: Reading, before: Reading) -> list[Change]:
    """The numbers of two exports that passed which differ by more than they do by themselves."""
    found = []
    for name, label, describe in _COMPARED:
        one, other = getattr(now, name), getattr(before, name)
        if one and other and (text := describe(one, other)):
            found.append(Change(name, label, text, is_more=one > other))
    return found


def _describe_factor(now: float, before: float) -> str:
    return "" if 1 / _DIFF_FACTOR < now / before < _DIFF_FACTOR else f"x{say_number(now / before)}"


def _describe_share(now: float, before: float, threshold: float) -> str:
    return "" if abs(now / before - 1) < threshold else say_growth(now, before)


def _describe_size(now: float, before: float) -> str:
    """Any change of what is meant to be the same each time; in bytes, where it would be 0.0 % of a large model."""
    if now == before:
        return ""
    if abs(now / before - 1) < _SIZE_SHARE:
        return f"{'+' if now > before else ''}{say_bytes(now - before)}"
    return say_growth(now, before, places=0 if abs(now / before - 1) >= 10 * _SIZE_SHARE else 1)


def _describe_count(now: float, before: float) -> str:
    return f"{now - before:+,.0f}" if now != before else ""


# Field, name, and what says how it differs. In words the share of the limit is told by the difference that it is of.
_COMPARED: Sequence[tuple[str, str, Callable[[float, float], str]]] = (
    ("max_abs_diff", "diff", _describe_factor),
    ("max_limit_share", "", _describe_factor),
    ("max_noise_ratio", "noise", _describe_factor),
    ("size_bytes", "size", _describe_size),
    ("num_nodes", "nodes", _describe_count),
    ("export_peak_bytes", "peak", partial(_describe_share, threshold=_MEMORY_SHARE)),
    ("duration_s", "time", partial(_describe_share, threshold=_TIME_SHARE)),
    ("latency_s", "latency", partial(_describe_share, threshold=_TIME_SHARE)),
)
