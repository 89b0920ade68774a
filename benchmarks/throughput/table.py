"""From records to medians, ratios, the table and the targets, as Markdown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.throughput.contenders import Contender, Record

__all__ = ["Summary", "render_table", "render_targets", "summarize"]

# The pipeline at two workers against the others: key of ours, key of theirs, how many times their throughput.
_SPEED_TARGETS = (
    ("c2", "a", 5.0, "a cold process per export"),
    ("c2", "b", 1.8, "a loop in one process"),
    ("c2t", "d", 3.0, "optimum's command line"),
    ("c2t", "e", 10.0, "Olive's command line"),
)
_MAX_OVERHEAD = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The medians of one contender over its rounds."""

    key: str
    label: str
    num_exports: int
    wall_s: float
    cpu_s: float
    lowest_wall_s: float
    highest_wall_s: float
    # CPU time beyond that of the exports themselves, as a part of theirs.
    overhead: float | None
    peak_bytes: int | None

    @property
    def exports_per_s(self) -> float:
        return self.num_exports / self.wall_s


def summarize(contenders: Sequence[Contender], records: Sequence[Record]) -> dict[str, Summary]:
    """Medians by contender, in the contenders' order; one without a good timed round is left out.

    Args:
        contenders: All that took part.
        records: Of all rounds. Round 0 is the one that read memory: its times do not count.
    """
    found = {}
    for contender in contenders:
        good = [record for record in records if record.contender == contender.key and not record.failure]
        timed = [record for record in good if record.round]
        if not timed:
            continue
        walls = [record.wall_s for record in timed]
        overheads = [record.cpu_s / record.own_cpu_s - 1 for record in timed if record.own_cpu_s]
        found[contender.key] = Summary(
            key=contender.key,
            label=contender.label,
            num_exports=len(contender.models),
            wall_s=statistics.median(walls),
            cpu_s=statistics.median(record.cpu_s for record in timed),
            lowest_wall_s=min(walls),
            highest_wall_s=max(walls),
            overhead=statistics.median(overheads) if overheads else None,
            peak_bytes=max((record.peak_bytes for record in good if record.peak_bytes is not None), default=None),
        )
    return found


def render_table(
    contenders: Sequence[Contender], records: Sequence[Record], summaries: dict[str, Summary]
) -> list[str]:
    """A line for each contender; one that failed says why."""
    lines = [
        "| | exports | wall, s (min, median, max) | s an export | exports/s | CPU, s | overhead | peak MiB |",
        "|---" * 8 + "|",
    ]
    for contender in contenders:
        title = f"| ({contender.key}) {contender.label} | {len(contender.models)} "
        failures = [record for record in records if record.contender == contender.key and record.failure]
        if failures:
            cause = failures[0].failure.replace("|", "/")
            lines.append(f"{title}| round {failures[0].round}: {cause} | | | | | |")
            continue
        item = summaries[contender.key]
        overhead = "" if item.overhead is None else f"{item.overhead:.0%}"
        peak = "" if item.peak_bytes is None else f"{item.peak_bytes / 2**20:,.0f}"
        lines.append(
            f"{title}| {item.lowest_wall_s:.1f}, {item.wall_s:.1f}, {item.highest_wall_s:.1f} "
            f"| {1 / item.exports_per_s:.2f} | {item.exports_per_s:.2f} | {item.cpu_s:.1f} | {overhead} | {peak} |"
        )
    return lines


def render_targets(summaries: dict[str, Summary]) -> list[str]:
    """A line for each target: what was wanted, what was found, and whether that is enough."""
    lines = ["| target | wanted | found | |", "|---|---|---|---|"]
    for ours, theirs, wanted, name in _SPEED_TARGETS:
        target = f"| ({ours}) against ({theirs}), {name} | at least {wanted:g}x "
        if ours in summaries and theirs in summaries:
            ratio = summaries[ours].exports_per_s / summaries[theirs].exports_per_s
            lines.append(f"{target}| {ratio:.2f}x | {_verdict(is_met=ratio >= wanted)} |")
        else:
            lines.append(f"{target}| | not measured |")
    for key in ("c2", "c2w"):
        summary = summaries.get(key)
        of_how_many = f" of {summary.num_exports} exports" if summary else ""
        target = f"| CPU beyond the exports' own, ({key}){of_how_many} | under {_MAX_OVERHEAD:.0%} "
        if summary is None or summary.overhead is None:
            lines.append(f"{target}| | not measured |")
        else:
            lines.append(f"{target}| {summary.overhead:.1%} | {_verdict(is_met=summary.overhead < _MAX_OVERHEAD)} |")
    return lines


def _verdict(*, is_met: bool) -> str:
    return "met" if is_met else "not met"
