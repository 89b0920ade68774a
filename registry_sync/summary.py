"""A batch as a Markdown note, for the page of its MLflow run."""

from registry_sync.record import BatchRecord, ExportRecord, Outcome

__all__ = ["render_summary"]

_HEADER = ("export", "outcome", "opset", "max_abs_diff", "peak, MiB", "size, KiB", "nodes", "time, s", "why")


def render_summary(record: BatchRecord) -> str:
    """The counts, and a table with a row for each export, failed ones first."""
    counts = ", ".join(f"{record.count(outcome)} {outcome.words}" for outcome in Outcome if record.count(outcome))
    rows = sorted(record.exports, key=lambda export: export.outcome not in (Outcome.failed, Outcome.unproven))
    lines = [
        f"**{record.name}**: {counts}, in {record.duration_s:.1f} s",
        "",
        f"| {' | '.join(_HEADER)} |",
        "|---" * len(_HEADER) + "|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    return "\n".join(lines)


def _cells(export: ExportRecord) -> tuple[str, ...]:
    why = f"{export.failure.step}: {export.failure.kind}" if export.failure else export.reason
    return (
        export.id,
        export.outcome.words,
        str(export.opset_version),
        "" if export.max_abs_diff is None else f"{export.max_abs_diff:.1e}",
        "" if export.export_peak_bytes is None else f"{export.export_peak_bytes / 2**20:.0f}",
        f"{export.size_bytes / 1024:,.0f}" if export.size_bytes else "",
        str(export.num_nodes or ""),
        f"{export.duration_s:.1f}",
        why.replace("|", "/"),
    )
