"""An export's result as the facts and tables that a person at a terminal reads: those of its report.html."""

from collections.abc import Iterator

from exporter.cases import describe_sizes
from exporter.pages.cost_view import view_ops, view_passes, view_steps
from exporter.pages.formats import say_bytes, say_count, say_number, say_seconds, say_share
from exporter.pages.page import show_unseen
from exporter.pages.parity_view import Comparison, view_parity
from exporter.pages.report_page import say_verdict
from exporter.pages.signature_view import view_dims, view_signature
from exporter.result import ExportResult, Status
from registry_sync.release_page import Page, Row, Table

__all__ = ["describe_export"]

# A terminal has no room for all that a page has; the page, or result.json, has the rest.
_MAX_ROWS = 24


def describe_export(result: ExportResult) -> Page:
    """Put the page together; what is empty is left out."""
    tables = [_cut(table) for table in _make_tables(result) if table.rows]
    return Page(
        title=f"{result.id}: {result.status.value}",
        passed=result.status is Status.passed,
        verdict=say_verdict(result, view_parity(result)),
        facts=[(name, value) for name, value in _find_facts(result) if value],
        tables=tables,
    )


def _find_facts(result: ExportResult) -> Iterator[tuple[str, str]]:
    failure = result.failure
    if failure is not None:
        yield "kind", failure.kind.value
        yield "cause", _plain(failure.cause)
        yield "what to do", _plain(failure.hint)
    yield "opset", str(result.spec.export.opset_version)
    yield "nodes", say_count(result.num_nodes) if result.num_nodes else ""
    yield "parameters", say_count(result.num_parameters) if result.num_parameters else ""
    yield "error", f"{say_number(result.max_noise_ratio)} times PyTorch's own" if result.max_noise_ratio else ""
    yield "latency", say_seconds(result.latency_s) if result.latency_s else ""
    yield "took", say_seconds(result.duration_s)
    yield "made", result.ended_at


def _make_tables(result: ExportResult) -> Iterator[Table]:
    parity = view_parity(result)
    rows = [_describe_comparison(one) for one in parity.rows]
    note = f"limits: {parity.gates}" if parity.gates else ""
    yield Table("Parity", ("case", "output", "max_abs_diff", "of its limit", "PyTorch's own"), rows, note)
    signature = [Row((one.role, _plain(one.name), one.dtype, one.shape)) for one in view_signature(result)]
    yield Table("Signature", ("", "name", "dtype", "shape"), signature)
    proven = [
        Row((_plain(one.record.name), f"{one.record.min} to {one.record.max}", one.sizes)) for one in view_dims(result)
    ]
    yield Table("Sizes that were proven", ("dim", "declared", "proven"), proven)
    steps = [
        Row((bar.name, say_seconds(bar.record.duration_s), say_bytes(bar.start_bytes), say_bytes(bar.peak_bytes)))
        for bar in view_steps(result)
    ]
    yield Table("Memory and time", ("step", "time", "at its start", "peak"), steps, "memory above the imports")
    bars, num_kinds, num_nodes = view_ops(result.op_counts)
    left_out = f"and {num_kinds} kinds more, with {num_nodes:,} nodes" if num_kinds else ""
    yield Table("Operators", ("operator", "nodes"), [Row((bar.op, say_count(bar.count))) for bar in bars], left_out)
    passes = [
        Row((_plain(one.record.name), ", ".join(f"{op} {change:+,}" for op, change in one.changes) or "nothing"))
        for one in view_passes(result)
    ]
    yield Table("Optimizer passes", ("pass", "what it changed"), passes)
    files = [Row((file.path, say_bytes(file.size_bytes), file.sha256)) for file in result.files]
    yield Table("Files", ("file", "size", "sha256"), files)
    yield Table("Versions", ("library", "version"), [Row(pair) for pair in sorted(result.versions.items())])


def _describe_comparison(one: Comparison) -> Row:
    sizes = describe_sizes(one.case.sizes)
    case = f"{one.case.name} ({sizes})" if sizes else one.case.name
    cells = (
        *(case, _plain(one.output.output), say_number(one.output.max_abs_diff)),
        *(say_share(one.share), say_share(one.floor)),
    )
    return Row(cells, "" if one.output.passed else "bad")


def _cut(table: Table) -> Table:
    num_left_out = len(table.rows) - _MAX_ROWS
    if num_left_out <= 0:
        return table
    told = f"and {num_left_out:,} more"
    return Table(table.title, table.header, table.rows[:_MAX_ROWS], f"{table.note}; {told}" if table.note else told)


def _plain(text: str) -> str:
    return str(show_unseen(text))
