"""A result as a Markdown page, for a person at a terminal or in the MLflow UI."""

from collections.abc import Iterable

from exporter.cases import describe_sizes
from exporter.evidence import DimRecord, Divergence, WeightsRecord
from exporter.result import ExportResult, Status, StepRecord, TensorRecord
from exporter.spec import Device

__all__ = ["render_report"]

_MEMORY_NOTE = (
    "Peaks are the kernel's, of the whole process. Anonymous: the step's peak, above its start, of what no file backs "
    "and the kernel cannot drop; sampled every 10 ms, so at least this."
)

_GPU_NOTE = "On the GPU: tensors, as torch's allocator counts them; neither CUDA itself nor ONNX Runtime's are in it."

_TORCHSCRIPT_NOTE = (
    "Each in a fresh process, from module to file; the modules that torch imports as an export begins are part of the "
    "peak."
)


def render_report(result: ExportResult) -> str:
    """The verdict and its evidence: signature, parity, steps, files, versions."""
    sections = [
        f"# {_text(result.id)}: {result.status}",
        _render_verdict(result),
        _render_divergence(result.divergence),
        _render_rescues(result),
        _render_signature(result),
        _render_dims(result),
        _render_parity(result),
        _render_noise(result),
        _render_passes(result),
        _render_steps(result),
        _render_torchscript(result),
        _render_files(result),
        _table("Versions", ("library", "version"), ((name, version) for name, version in result.versions.items())),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _render_verdict(result: ExportResult) -> str:
    failure = result.failure
    if failure is None:
        rescued = f" It needed: {', '.join(result.rescued_by)}." if result.rescued_by else ""
        return (
            f"Exported in {result.duration_s:.2f} s; every output agreed with PyTorch in {len(result.cases)} cases."
            f"{rescued}"
        )
    return "\n".join(
        (
            f"- step: {failure.step or 'before the first'}",
            f"- kind: `{failure.kind}`",
            f"- cause: {_text(failure.cause)}",
            f"- what to do: {_text(failure.hint)}",
            *((f"- operators: {_text(', '.join(failure.ops))}",) if failure.ops else ()),
            *((f"- fingerprint: `{failure.fingerprint}`",) if failure.fingerprint else ()),
        )
    )


def _render_divergence(found: Divergence | None) -> str:
    if found is None:
        return ""
    module = f"`{_text(found.module)}`" if found.module else "the model itself"
    facts = [
        ("node", f"`{_text(found.node)}` ({_text(found.op_type)})" if found.node else ""),
        ("value", f"`{_text(found.value)}`" if found.value else ""),
        ("torch module", module if found.node else ""),
        ("source", f"`{_text(found.source)}`" if found.source else ""),
        ("torch gives", found.expected),
        ("ONNX Runtime gives", found.actual),
        ("max_abs_diff", "" if found.max_abs_diff is None else _number(found.max_abs_diff)),
        ("roundings of its largest element", "" if found.roundings is None else f"{found.roundings:.4g}"),
        ("the most before it", "" if found.roundings_before is None else f"{found.roundings_before:.4g}"),
        ("made by", _text(", ".join(found.suspects))),
    ]
    lines = [f"- {name}: {value}" for name, value in facts if value]
    effort = f"{found.num_compared} values compared in {found.num_sessions} runs of ONNX Runtime."
    return "\n".join(
        (f"## Where it went wrong, case {_text(found.case)}", "", f"{_text(found.summary)}.", "", *lines, "", effort)
    )


def _render_rescues(result: ExportResult) -> str:
    return _table(
        "Ways round a failure that were tried",
        ("way", "after", "cause", "helped"),
        (
            (record.rung, f"{record.step}: {record.kind}", record.cause, "yes" if record.helped else "no")
            for record in result.rescues
        ),
    )


def _render_signature(result: ExportResult) -> str:
    def rows(role: str, records: list[TensorRecord]) -> Iterable[tuple[object, ...]]:
        for record in records:
            yield role, record.name, record.dtype, f"[{', '.join(str(axis) for axis in record.shape)}]"

    return _table(
        "Signature",
        ("", "name", "dtype", "shape"),
        (
            *rows("input", result.inputs),
            # What forward was given that is no tensor, and the graph cannot be given any more.
            *(
                ("baked", path, type(value).__name__, repr(value))
                for path, value in result.spec.model.constants.items()
            ),
            *rows("output", result.outputs),
        ),
    )


def _render_dims(result: ExportResult) -> str:
    return _table(
        "Dims",
        ("name", "declared", "example", "proven at"),
        ((dim.name, f"{dim.min} to {dim.max}", dim.example, _render_proven(dim)) for dim in result.dims),
    )


def _render_proven(dim: DimRecord) -> str:
    if not dim.proven_sizes:
        return "none"
    sizes = ", ".join(str(size) for size in dim.proven_sizes)
    # Inputs larger than parity.max_input_elements are not made.
    return sizes if dim.max in dim.proven_sizes else f"{sizes} (not at {dim.max})"


def _render_parity(result: ExportResult) -> str:
    precision = result.spec.precision
    gates = [
        f"{key} {getattr(precision, key):g}"
        for key in ("rtol", "atol", "max_rel_l2")
        if getattr(precision, key) is not None
    ]
    table = _table(
        f"Parity ({precision.name.value}: {', '.join(gates)})",
        ("case", "sizes", "output", "verdict", "max_abs_diff", "max_rel_diff", "rel_l2", "elements"),
        (
            (
                case.name,
                describe_sizes(case.sizes),
                output.output,
                "passed" if output.passed else output.reason,
                _number(output.max_abs_diff),
                _number(output.max_rel_diff),
                _number(output.rel_l2),
                output.num_elements,
            )
            for case in result.cases
            for output in case.outputs
        ),
    )
    if not table or result.spec.export.device is Device.cpu:
        return table
    return f"{table}\n\nPyTorch ran on {result.spec.export.device}, ONNX Runtime on {', '.join(result.ort_providers)}."


def _render_noise(result: ExportResult) -> str:
    """PyTorch's error and ONNX Runtime's, side by side; docs/parity.md says how they judge."""
    table = _table(
        f"Noise floor (limit {result.spec.parity.max_noise_ratio:g})",
        ("case", "output", "verdict", "ratio", "PyTorch rms", "ONNX Runtime rms", "PyTorch max", "ONNX Runtime max"),
        (
            (
                case.name,
                output.output,
                noise.verdict,
                _number(noise.ratio),
                *map(_number, (noise.torch.rms, noise.ort.rms, noise.torch.max, noise.ort.max)),
            )
            for case in result.cases
            for output in case.outputs
            if (noise := output.noise) is not None
        ),
    )
    reasons = {case.noise_reason: case.name for case in reversed(result.cases) if case.noise_reason}
    missing = [f"No noise floor from case {name} on: {_text(reason)}." for reason, name in reasons.items()]
    return "\n\n".join(part for part in (table, *missing) if part)


def _render_passes(result: ExportResult) -> str:
    return _table(
        "Passes",
        ("pass", "nodes", "initializers", "what changed"),
        (
            (
                record.name,
                f"{record.num_nodes_before} to {record.num_nodes_after}",
                f"{record.num_initializers_before} to {record.num_initializers_after}",
                ", ".join(f"{op} {change:+d}" for op, change in record.op_changes.items()) or "-",
            )
            for record in result.passes
        ),
    )


def _render_steps(result: ExportResult) -> str:
    on_gpu = any(record.cuda_peak_bytes is not None for record in result.steps)
    table = _table(
        "Steps",
        (
            *("step", "time, s", "peak above the export's start, MiB", "above the step's start, MiB", "anonymous, MiB"),
            *(("peak on the GPU, MiB",) if on_gpu else ()),
        ),
        (
            (
                _name_step(record),
                f"{record.duration_s:.3f}",
                _mebibytes(result.peak_bytes(record.step)),
                _mebibytes(record.delta_bytes),
                _mebibytes(record.delta_anon_bytes),
                *((_mebibytes(record.cuda_peak_bytes),) if on_gpu else ()),
            )
            for record in result.steps
        ),
    )
    note = f"{_MEMORY_NOTE} {_GPU_NOTE}" if on_gpu else _MEMORY_NOTE
    return f"{table}\n\n{note}" if table else ""


def _render_torchscript(result: ExportResult) -> str:
    record = result.torchscript
    if record is None:
        return ""
    table = _table(
        "Beside the TorchScript exporter",
        ("exporter", "peak above its imports, MiB", "time, s"),
        (
            ("dynamo", _mebibytes(record.dynamo_peak_bytes), _number(record.dynamo_duration_s)),
            ("TorchScript", _mebibytes(record.peak_bytes), _number(record.duration_s)),
        ),
    )
    share = record.dynamo_share
    told = "" if share is None else f" The dynamo exporter needs {share:.1%} of TorchScript's peak."
    missing = f" Not measured: {_text(record.reason)}." if record.reason else ""
    return f"{table}\n\n{_TORCHSCRIPT_NOTE}{told}{missing}"


def _name_step(record: StepRecord) -> str:
    return record.step if record.attempt == 1 else f"{record.step}, attempt {record.attempt}"


def _render_files(result: ExportResult) -> str:
    if result.status is not Status.passed:
        return ""
    latency = "" if result.latency_s is None else f", {result.latency_s * 1000:.3g} ms a call in ONNX Runtime"
    if latency and not result.latency_prepacked:
        latency += " (weights mapped, not prepacked)"
    facts = (
        f"{result.num_parameters:,} parameters, {result.num_nodes_captured} nodes captured, {result.num_nodes} after "
        f"optimize, opset {result.spec.export.opset_version}{latency}."
    )
    files = _table(
        "Files",
        ("file", "bytes", "sha256"),
        ((file.path, file.size_bytes, file.sha256) for file in result.files),
    )
    return f"{files}\n\n{facts}{_render_weights(result.weights)}"


def _render_weights(weights: WeightsRecord | None) -> str:
    if weights is None:
        return ""
    return f" Weights {weights.mode}{f': {_text(weights.reason)}' if weights.reason else ''}."


def _table(title: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join((f"## {title}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|", *lines))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.1f}"


def _text(text: str) -> str:
    """Names and messages are not markup: neutralize what Markdown and HTML would read as such."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'"), ("\n", " ")):
        text = text.replace(raw, safe)
    return text
