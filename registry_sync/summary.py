"""A batch as a Markdown note, for the page of its MLflow run."""

from collections.abc import Mapping

from exporter.pages.formats import say_bytes, say_count, say_number, say_seconds
from exporter.result import ExportResult
from registry_sync.changes import Baseline
from registry_sync.record import REVIEWED, BatchRecord, ExportRecord, Outcome

__all__ = ["render_summary"]

# What decides comes first: MLflow's page has room for half of it.
_HEADER = (
    "export",
    "verdict",
    "change",
    "why",
    "max_abs_diff",
    "noise",
    "peak",
    "size",
    "nodes",
    "time",
    "opset",
    "precision",
)
_NUMBERS = ("max_abs_diff", "noise", "peak", "size", "nodes", "time", "opset")


def render_summary(
    record: BatchRecord,
    results: Mapping[str, ExportResult] | None = None,
    baseline: Baseline | None = None,
    links: Mapping[str, str] | None = None,
    page: str = "",
) -> str:
    """The counts and where to look, and a table with a row for each export, failed ones first.

    Args:
        record: Of the batch.
        results: Of its exports by their ids, as far as they are at hand; the noise ratio is read from them.
        baseline: What to compare with.
        links: From an export's id to the page of its run.
        page: Where the batch's page is.
    """
    counts = ", ".join(f"{record.count(outcome)} {outcome.words}" for outcome in Outcome if record.count(outcome))
    rows = sorted(record.exports, key=lambda export: REVIEWED.index(export.outcome))
    lines = [
        # In the first line, as MLflow lays a veil over the others, through which nothing can be clicked.
        f"**{record.name}**: {counts}, in {say_seconds(record.duration_s)}"
        + (f" · [as a page]({page})" if page else ""),
        "",
        _say_baseline(baseline),
        "",
        f"| {' | '.join(_HEADER)} |",
        "|".join(["", *("---:" if name in _NUMBERS else "---" for name in _HEADER), ""]),
        *(f"| {' | '.join(_cells(row, results or {}, baseline, links or {}))} |" for row in rows),
        "",
        "noise: ONNX Runtime's error in multiples of PyTorch's own.",
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
        _say_whole(export.outcome.words),
        _describe_change(export, baseline) if baseline else "",
        why.replace("|", "/"),
        "" if export.max_abs_diff is None else _say_whole(say_number(export.max_abs_diff)),
        "" if ratio is None else _say_whole(say_number(ratio)),
        "" if export.export_peak_bytes is None else _say_whole(say_bytes(export.export_peak_bytes)),
        _say_whole(say_bytes(export.size_bytes)) if export.size_bytes else "",
        say_count(export.num_nodes) if export.num_nodes else "",
        _say_whole(say_seconds(export.duration_s)) if export.duration_s else "",
        str(export.opset_version),
        export.precision,
    )


def _say_whole(text: str) -> str:
    """Words, or a number, that stay on one line in a narrow column."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _describe_change(export: ExportRecord, baseline: Baseline) -> str:
    words, other = baseline.describe_change(export), baseline.others.get(export.id)
    words = ", ".join(map(_say_whole, words.split(", ")))
    return f"{words} ({other})" if words and other else words


def _say_baseline(baseline: Baseline | None) -> str:
    if baseline is None:
        return "No earlier batch of this name is known."
    others = " A row that names another release is since that one, the last in which the export was accepted."
    return f"Changes are since {baseline.title}.{others if baseline.others else ''}"
