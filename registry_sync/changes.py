"""What changed since the last batch of the same name, in words for a reviewer's table."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.plain_data import DataError
from registry_sync.record import GOOD, BatchRecord, ExportRecord, Outcome, RunDirectory

__all__ = ["EarlierBatch", "Reading", "describe_change", "find_earlier_batch", "read_export"]

# Less than this comes and goes by itself: memory by the allocator, time by whatever else the machine does.
_MEMORY_SHARE = 0.1
_TIME_SHARE = 0.5
# A difference moves with the order of summation; by this factor it is worth a look.
_DIFF_FACTOR = 2.0
# Further back a name has most likely meant something else.
_MAX_BATCHES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is compared of an export."""

    outcome: Outcome
    max_abs_diff: float | None = None
    export_peak_bytes: float | None = None
    size_bytes: float | None = None
    num_nodes: float | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierBatch:
    """The last batch of a name, and its exports by their ids."""

    run_id: str
    exports: Mapping[str, Reading] = field(default_factory=dict)


def read_export(export: ExportRecord) -> Reading:
    """The reading in a batch's summary."""
    return Reading(
        outcome=export.outcome,
        max_abs_diff=export.max_abs_diff,
        export_peak_bytes=export.export_peak_bytes,
        size_bytes=export.size_bytes or None,
        num_nodes=export.num_nodes or None,
        duration_s=export.duration_s or None,
    )


def find_earlier_batch(run: RunDirectory, record: BatchRecord) -> EarlierBatch | None:
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
            return EarlierBatch(run_id=other.run_id, exports=readings)
    return None


def describe_change(now: Reading, before: Reading | None) -> str:
    """A few words: `size +12 %, peak -30 %`, `failed before`, `as before`, or `first time`."""
    if now.outcome is Outcome.cancelled:
        return ""
    if before is None:
        return "first time"
    if now.outcome in GOOD and before.outcome in GOOD:
        return ", ".join(_list_changes(now, before)) or "as before"
    if (now.outcome in GOOD) == (before.outcome in GOOD) and now.outcome is before.outcome:
        return "as before"
    return f"{before.outcome.words if before.outcome not in GOOD else 'passed'} before"


def _list_changes(now: Reading, before: Reading) -> list[str]:
    changes = [
        _describe_factor("diff", now.max_abs_diff, before.max_abs_diff),
        _describe_share("size", now.size_bytes, before.size_bytes, 0.0),
        _describe_count("nodes", now.num_nodes, before.num_nodes),
        _describe_share("peak", now.export_peak_bytes, before.export_peak_bytes, _MEMORY_SHARE),
        _describe_share("time", now.duration_s, before.duration_s, _TIME_SHARE),
    ]
    return [change for change in changes if change]


def _describe_factor(name: str, now: float | None, before: float | None) -> str:
    if not now or not before or 1 / _DIFF_FACTOR < now / before < _DIFF_FACTOR:
        return ""
    return f"{name} x{now / before:.2g}"


def _describe_share(name: str, now: float | None, before: float | None, threshold: float) -> str:
    if not now or not before or now == before or abs(now / before - 1) < threshold:
        return ""
    share = 100 * (now / before - 1)
    return f"{name} {share:+.0f} %" if abs(share) >= 1 else f"{name} {share:+.1g} %"


def _describe_count(name: str, now: float | None, before: float | None) -> str:
    return f"{name} {now - before:+.0f}" if now and before and now != before else ""
