"""A batch as a page for a browser: which models passed in which variants, what each cost, and what changed.

Rendered from the batch's summary alone, so that a result that is gone or broken keeps no page from being there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.files import write_text
from exporter.pages.page import render_page
from exporter.result import Failure
from registry_sync.changes import Baseline, Change, list_changes, read_export
from registry_sync.record import GOOD, REVIEWED, BatchRecord, ExportRecord, Outcome, RunDirectory

__all__ = ["render_batch_page", "write_batch_page"]

_MAX_ROWS = 5000
_MAX_MODELS = 200
_MAX_VARIANTS = 100
# With more variants than this a verdict is a tile, not a word.
_MAX_WORDS = 8
# A table with more rows scrolls within a frame, under its headings.
_MAX_OPEN_ROWS = 25
_MAX_CAUSES = 100
_MAX_NAMES = 12
_MAX_KINDS = 5
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class _Row:
    """One export, and what changed of it by the fields that changed."""

    export: ExportRecord
    variant: str
    # What became of it since then; and since which release, where that is not the page's.
    words: str
    other: str
    changes: Mapping[str, Change]


@dataclass(frozen=True)
class _Matrix:
    """Models against variants; a cell is None where there is no such export."""

    variants: list[str]
    models: list[tuple[str, list[ExportRecord | None]]]
    num_models_left_out: int
    num_variants_left_out: int
    has_words: bool
    is_tall: bool


@dataclass(frozen=True)
class _Cause:
    """One failure, and the exports that have it."""

    failure: Failure
    outcome: Outcome
    names: list[str]
    num_names: int


def render_batch_page(record: BatchRecord, baseline: Baseline | None = None) -> str:
    """The whole page.

    Args:
        record: Of the batch.
        baseline: What to compare with.
    """
    exports = sorted(record.exports, key=lambda export: REVIEWED.index(export.outcome))
    causes = _group_causes(exports)
    return render_page(
        "batch_page.html.j2",
        _FOLDER,
        "batch_page.js",
        record=record,
        counts=[(outcome, record.count(outcome)) for outcome in REVIEWED if record.count(outcome)],
        lead=_say_verdict(record),
        rows=[_make_row(export, baseline) for export in exports[:_MAX_ROWS]],
        num_rows_left_out=max(0, len(exports) - _MAX_ROWS),
        is_tall=len(exports) > _MAX_OPEN_ROWS,
        matrix=_make_matrix(record.exports),
        causes=causes[:_MAX_CAUSES],
        num_causes_left_out=max(0, len(causes) - _MAX_CAUSES),
        baseline=baseline,
        sum_size_bytes=sum(export.size_bytes for export in record.exports if export.outcome in GOOD),
        worst_peak_bytes=_largest([export.export_peak_bytes for export in record.exports]),
        worst_share=_largest([export.max_limit_share for export in record.exports if export.outcome in GOOD]),
        worst_noise=_largest([export.max_noise_ratio for export in record.exports if export.outcome in GOOD]),
    )


def write_batch_page(run: RunDirectory, record: BatchRecord, baseline: Baseline | None) -> None:
    """Write it beside the summary.

    Raises:
        OSError: The disk would not.
    """
    write_text(run.page, render_batch_page(record, baseline))


def _say_verdict(record: BatchRecord) -> str:
    num_good = sum(record.count(outcome) for outcome in GOOD)
    num_exports = len(record.exports)
    if num_good == num_exports:
        return "The export is proven." if num_exports == 1 else f"All {num_exports:,} exports are proven."
    kinds: dict[str, int] = {}
    for export in record.exports:
        if export.failure is not None:
            kinds[export.failure.kind] = kinds.get(export.failure.kind, 0) + 1
    told = sorted(kinds.items(), key=lambda item: -item[1])
    words = [f"{count:,} {kind}" for kind, count in told[:_MAX_KINDS]]
    if len(told) > _MAX_KINDS:
        words.append(f"{sum(count for _, count in told[_MAX_KINDS:]):,} of {len(told) - _MAX_KINDS} other kinds")
    why = f": {', '.join(words)}" if words else ""
    return f"{num_exports - num_good:,} of {num_exports:,} exports are not proven{why}."


def _make_row(export: ExportRecord, baseline: Baseline | None) -> _Row:
    before = baseline.exports.get(export.id) if baseline else None
    now = read_export(export)
    is_comparable = before is not None and export.outcome in GOOD and before.outcome in GOOD
    changes = list_changes(now, before) if before is not None and is_comparable else []
    return _Row(
        export=export,
        variant=_name_variant(export),
        words=baseline.describe_change(export) if baseline else "",
        other=baseline.others.get(export.id, "") if baseline else "",
        changes={change.field: change for change in changes},
    )


def _name_variant(export: ExportRecord) -> str:
    """What the export's name says beside the model's; empty where it is the model as it is declared."""
    return export.id.removeprefix(export.model).lstrip("-") if export.id.startswith(export.model) else export.id


def _make_matrix(exports: Sequence[ExportRecord]) -> _Matrix | None:
    """None where there is one variant, or one model: the table says it all."""
    variants = list(dict.fromkeys(_name_variant(export) for export in exports))
    models: dict[str, dict[str, ExportRecord]] = {}
    for export in exports:
        models.setdefault(export.model, {})[_name_variant(export)] = export
    if len(variants) < 2 or len(models) < 2:
        return None
    shown = variants[:_MAX_VARIANTS]
    return _Matrix(
        variants=shown,
        models=[
            (name, [found.get(variant) for variant in shown]) for name, found in list(models.items())[:_MAX_MODELS]
        ],
        num_models_left_out=max(0, len(models) - _MAX_MODELS),
        num_variants_left_out=len(variants) - len(shown),
        has_words=len(shown) <= _MAX_WORDS,
        is_tall=len(models) > _MAX_OPEN_ROWS,
    )


def _group_causes(exports: Sequence[ExportRecord]) -> list[_Cause]:
    """Failures that have one fingerprint together, those of most exports first."""
    groups: dict[object, list[ExportRecord]] = {}
    for export in exports:
        if (failure := export.failure) is not None:
            groups.setdefault(failure.fingerprint or (failure.kind, failure.cause), []).append(export)
    causes = []
    for group in sorted(groups.values(), key=len, reverse=True):
        assert group[0].failure is not None
        names = [export.id for export in group]
        causes.append(_Cause(group[0].failure, group[0].outcome, names[:_MAX_NAMES], len(names)))
    return causes


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
