"""A batch as a Markdown note, for the page of its MLflow run."""

from collections.abc import Mapping

from exporter.pages.formats import say_bytes, say_count, say_number, say_seconds
from exporter.result import ExportResult
from registry_sync.changes import Baseline
from registry_sync.record import BatchRecord, ExportRecord, Outcome

__all__ = ["render_summary"]

_HEADER = (
    "export",
    "verdict",
    "opset",
    "precision",
    "max_abs_diff",
    "noise",
    "peak",
    "size",
    "nodes",
    "time",
    "change",
    "why",
)


def render_summary(
    record: BatchRecord,
    results: Mapping[str, ExportResult] | None = None,
    baseline: Baseline | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """The counts, and a table with a row for each export, failed ones first.

    Args:
        record: Of the batch.
        results: Of its exports by their ids, as far as they are at hand; the noise ratio is read from them.
        baseline: What to compare with.
        links: From an export's id to the page of its run.
    """
    counts = ", ".join(f"{record.count(outcome)} {outcome.words}" for outcome in Outcome if record.count(outcome))
    rows = sorted(record.exports, key=lambda export: export.outcome not in (Outcome.failed, Outcome.unproven))
    lines = [
        f"**{record.name}**: {counts}, in {say_seconds(record.duration_s)}",
        "",
        f"| {' | '.join(_HEADER)} |",
        "|---" * len(_HEADER) + "|",
        *(f"| {' | '.join(_cells(row, results or {}, baseline, links or {}))} |" for row in rows),
        "",
        "noise: ONNX Runtime's error in multiples of PyTorch's own. " + _say_baseline(baseline),
    ]
    return "\n".join(lines)


def _cells(
    export: ExportRecord,
    results: Mapping[str, ExportResult],
    baseline: Baseline | None,
    links: Mapping[str, str],
) -> tuple[str, ...]:
    result = results.get(export.id)
    ratio = result.max_noise_ratio if result is not None else None
    why = f"{export.failure.step or 'start'}: {export.failure.kind}" if export.failure else export.reason
    return (
        f"[{export.id}]({links[export.id]})" if export.id in links else export.id,
        export.outcome.words,
        str(export.opset_version),
        export.precision,
        "" if export.max_abs_diff is None else say_number(export.max_abs_diff),
        "" if ratio is None else say_number(ratio),
        "" if export.export_peak_bytes is None else say_bytes(export.export_peak_bytes),
        say_bytes(export.size_bytes) if export.size_bytes else "",
        say_count(export.num_nodes) if export.num_nodes else "",
        say_seconds(export.duration_s) if export.duration_s else "",
        _describe_change(export, baseline) if baseline else "",
        why.replace("|", "/"),
    )


def _describe_change(export: ExportRecord, baseline: Baseline) -> str:
    words, other = baseline.describe_change(export), baseline.others.get(export.id)
    return f"{words} ({other})" if words and other else words


def _say_baseline(baseline: Baseline | None) -> str:
    if baseline is None:
        return "No earlier batch of this name is known."
    others = " A row that names another release is since that one, the last in which the export was accepted."
    return f"change: since {baseline.title}.{others if baseline.others else ''}"
