"""What changed in a release, for who has to decide: one Markdown page and one HTML page with the same tables.

The HTML is one file that loads nothing and runs nothing; every text in it is escaped, since causes and names come from
the user's models.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter.pages.formats import say_bytes, say_count, say_number, say_seconds
from exporter.pages.page import render_page
from registry_sync.failure_ledger import list_failures
from registry_sync.release_difference import compare_models
from registry_sync.release_manifest import Manifest, ReleaseDirectory, ReleasedModel, Verdict
from registry_sync.release_options import ReleaseBudgets

__all__ = [
    "Page",
    "Row",
    "Table",
    "describe_difference",
    "describe_release",
    "list_releases",
    "render_html",
    "render_markdown",
]

# In HTML; a browser shows so many.
_MAX_ROWS = 5000
_CLASSES = {
    **dict.fromkeys(("max_abs_diff", "noise", "peak", "latency", "size", "nodes", "releases"), "num"),
    **dict.fromkeys(("cause", "what to do", "why it is refused"), "what"),
    "fingerprint": "code",
    "sha256": "hash code",
}
_MARKUP = re.compile(r"([\\`*_\[\]])")


@dataclass(frozen=True)
class Row:
    """Cells of a table, and what colour they stand in: good, bad, or none."""

    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its title; without rows it is left out."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Row]
    note: str = ""

    @property
    def classes(self) -> Mapping[str, str]:
        """How a browser shows each column, by its name; as text where it is not said."""
        return defaultdict(str, {name: _CLASSES[name] for name in self.header if name in _CLASSES})


@dataclass(frozen=True)
class Page:
    """Everything that is said of a release, in the order in which it is read."""

    title: str
    passed: bool
    verdict: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table] = field(default_factory=list)


def describe_release(manifest: Manifest, earlier: Sequence[Manifest]) -> Page:
    """Put the page together.

    Args:
        manifest: Of the release.
        earlier: Releases of that name before it, oldest first.
    """
    words = ", ".join(f"{count} {words}" for words, count in _count_verdicts(manifest))
    facts = [
        ("made", f"{_say_time(manifest)} UTC"),
        ("release before it", manifest.previous or "none"),
        ("git commit", manifest.git_commit or "none"),
        ("batch", manifest.run_id),
        ("MLflow run", manifest.mlflow_run_id),
        ("command", " ".join(manifest.command)),
    ]
    tables = [
        _describe_refused(manifest),
        _describe_failed(manifest),
        _describe_changes(manifest),
        _describe_arrivals(manifest, earlier),
        _describe_models(manifest),
        _describe_ledger([*earlier, manifest]),
        _describe_versions(manifest),
        _describe_files(manifest),
    ]
    return Page(
        title=f"Release {manifest.title}",
        passed=manifest.passed,
        verdict=f"{'passed' if manifest.passed else 'not passed'}: {words}",
        facts=[fact for fact in facts if fact[1]],
        tables=[table for table in tables if table.rows],
    )


def describe_difference(before: Manifest, after: Manifest) -> Table:
    """Two releases of any age, whatever the budgets are."""
    free = ReleaseBudgets(may_change_signature=True, may_narrow_dims=True, may_change_opset=True)
    rows = []
    for export in sorted({model.id for model in [*before.models, *after.models]}):
        old, new = before.find(export), after.find(export)
        if old is None or new is None:
            rows.append(Row((export, "there", _is_there(old), _is_there(new))))
            continue
        if old.failure is None and new.failure is None:
            rows += [Row((export, one.what, one.before, one.after)) for one in compare_models(old, new, free)]
        outcomes = _describe_outcome(old), _describe_outcome(new)
        if outcomes[0] != outcomes[1]:
            rows.append(Row((export, "verdict", *outcomes), "" if new.verdict.is_good else "bad"))
        if _list_hashes(old) != _list_hashes(new):
            rows.append(Row((export, "bytes", _list_hashes(old), _list_hashes(new))))
    return Table(f"{before.title} and {after.title}", ("export", "what", before.version, after.version), rows)


def list_releases(releases: Sequence[tuple[ReleaseDirectory, Manifest]]) -> Table:
    """A row for each."""
    rows = [
        Row(
            (
                manifest.title,
                "passed" if manifest.passed else "not passed",
                _say_time(manifest),
                ", ".join(f"{count} {words}" for words, count in _count_verdicts(manifest)),
                manifest.git_commit[:12],
                "yes" if directory.read_registration() is not None else "no",
            ),
            "good" if manifest.passed else "bad",
        )
        for directory, manifest in releases
    ]
    return Table("Releases", ("release", "verdict", "made, UTC", "models", "commit", "registered"), rows)


def render_markdown(page: Page) -> str:
    """For a terminal, a commit, an MLflow note."""
    lines = [f"# {_escape(page.title)}", "", f"**{_escape(page.verdict)}**", ""]
    lines += [f"- {name}: {_escape(value)}" for name, value in page.facts]
    for table in page.tables:
        lines += ["", f"## {_escape(table.title)}", ""]
        if table.note:
            lines += [_escape(table.note), ""]
        lines += [f"| {' | '.join(table.header)} |", "|---" * len(table.header) + "|"]
        lines += [f"| {' | '.join(map(_escape, row.cells))} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def render_html(page: Page) -> str:
    """One file, light and dark."""
    return render_page("release_page.html.j2", Path(__file__).parent, page=page, max_rows=_MAX_ROWS)


def _say_time(manifest: Manifest) -> str:
    """To the minute; it was written in UTC."""
    return manifest.created_at[:16].replace("T", " ")


def _count_verdicts(manifest: Manifest) -> list[tuple[str, int]]:
    counts = [(verdict.words, sum(model.verdict is verdict for model in manifest.models)) for verdict in Verdict]
    return [(words, count) for words, count in counts if count]


def _is_there(model: ReleasedModel | None) -> str:
    return "no" if model is None else "yes"


def _describe_outcome(model: ReleasedModel) -> str:
    failure = model.failure
    return f"{model.verdict.words}: {failure.kind} ({failure.fingerprint})" if failure else model.verdict.words


def _list_hashes(model: ReleasedModel) -> str:
    return ", ".join(f"{file.path} {file.sha256[:12]}" for file in model.model_files) or "none"


def _describe_refused(manifest: Manifest) -> Table:
    rows = [
        Row((model.id, model.baseline, change.what, change.before, change.after, change.exceeded))
        for model in manifest.models
        if model.verdict is Verdict.over_budget
        for change in model.changes
        if change.exceeded
    ]
    return Table(
        "Over budget",
        ("export", "compared with", "what", "before", "now", "why it is refused"),
        rows,
        "No candidate. If it is meant: raise release.budgets, or run once with release.accept=[EXPORT].",
    )


def _describe_failed(manifest: Manifest) -> Table:
    rows = [
        Row(
            (
                model.id,
                model.failure_history,
                f"{model.failure.step or 'start'}: {model.failure.kind}",
                model.failure.cause,
                model.failure.hint,
                model.failure.fingerprint,
                " until ".join(filter(None, [model.issue, model.expires])),
            ),
            "" if model.verdict.is_good else "bad",
        )
        for model in manifest.models
        if model.failure is not None
    ]
    return Table("Failed", ("export", "history", "kind", "cause", "what to do", "fingerprint", "issue"), rows)


def _describe_changes(manifest: Manifest) -> Table:
    rows = [
        Row((model.id, model.baseline, change.what, change.before, change.after))
        for model in manifest.models
        for change in model.changes
        if not (change.exceeded and model.verdict is Verdict.over_budget)
    ]
    return Table("Changes within the budget, or accepted", ("export", "since", "what", "before", "now"), rows)


def _describe_arrivals(manifest: Manifest, earlier: Sequence[Manifest]) -> Table:
    last = earlier[-1] if earlier else None
    come = [model.id for model in manifest.models if last is not None and last.find(model.id) is None]
    fixed = [model.id for model in manifest.models if model.failure is None and model.failure_history]
    rows = [
        *(Row((name, "new in this release")) for name in come),
        *(Row((name, "no longer in the release")) for name in manifest.removed),
        *(Row((name, "failed in the release before, passes now"), "good") for name in fixed),
    ]
    return Table("Come and gone", ("export", ""), rows)


def _describe_models(manifest: Manifest) -> Table:
    order = list(Verdict)
    models = sorted(manifest.models, key=lambda model: (model.verdict.is_good, order.index(model.verdict)))
    header = ("export", "verdict", "opset", "precision", "max_abs_diff", "noise", "peak", "latency", "size", "nodes")
    return Table(
        "Models",
        (*header, "exported"),
        [Row(_list_cells(model), _choose_mark(model)) for model in models],
        "noise: ONNX Runtime's error in multiples of PyTorch's own.",
    )


def _list_cells(model: ReleasedModel) -> tuple[str, ...]:
    measured, parity = model.measured, model.parity
    return (
        model.id,
        model.verdict.words,
        str(model.opset_version),
        model.precision,
        "" if parity.max_abs_diff is None else say_number(parity.max_abs_diff),
        "" if parity.max_noise_ratio is None else say_number(parity.max_noise_ratio),
        "" if measured.export_peak_bytes is None else say_bytes(measured.export_peak_bytes),
        "" if measured.latency_s is None else say_seconds(measured.latency_s),
        say_bytes(measured.size_bytes) if measured.size_bytes else "",
        say_count(measured.num_nodes) if measured.num_nodes else "",
        "anew" if model.is_new else "was up to date",
    )


def _choose_mark(model: ReleasedModel) -> str:
    if not model.verdict.is_good:
        return "bad"
    return "good" if model.verdict is Verdict.accepted else ""


def _describe_ledger(releases: Sequence[Manifest]) -> Table:
    rows = [
        Row((one.export, one.state, one.kind, one.fingerprint, one.first, one.last, str(one.num_releases), one.issue))
        for one in list_failures(releases)
    ]
    header = ("export", "state", "kind", "fingerprint", "first in", "last in", "releases", "issue")
    return Table("Failures over the last releases", header, rows)


def _describe_versions(manifest: Manifest) -> Table:
    rows = [Row((name, version)) for name, version in manifest.versions.items()]
    return Table("Versions", ("library", "version"), rows)


def _describe_files(manifest: Manifest) -> Table:
    rows = [
        Row((f"{model.id}/{file.path}", say_bytes(file.size_bytes), file.sha256))
        for model in manifest.models
        for file in model.model_files
    ]
    return Table("Files", ("file", "size", "sha256"), rows, "manifest.json and SHA256SUMS have the others too.")


def _escape(text: object) -> str:
    """Text that stays text in Markdown, in one cell of a table."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return _MARKUP.sub(r"\\\1", line)
