"""The page of one export: the verdict and why, then all that it rests on and what it cost."""

from pathlib import Path

from exporter.cases import describe_sizes
from exporter.directory import ExportDirectory
from exporter.evidence import Divergence
from exporter.pages.cost_view import view_ops, view_passes, view_steps
from exporter.pages.formats import say_number, say_share
from exporter.pages.page import render_page
from exporter.pages.parity_view import ParityView, view_parity
from exporter.pages.signature_view import view_dims, view_signature
from exporter.plain_data import DataError
from exporter.result import ExportResult, Status

__all__ = ["render_broken_page", "render_report_page", "render_stored_page", "say_verdict"]


def render_report_page(result: ExportResult) -> str:
    """The whole page; the same for the same result."""
    parity = view_parity(result)
    ops, num_kinds_left_out, num_nodes_left_out = view_ops(result.op_counts)
    return render_page(
        "report.html.j2",
        result=result,
        lead=say_verdict(result, parity),
        parity=parity,
        steps=view_steps(result),
        signature=view_signature(result),
        dims=view_dims(result),
        ops=ops,
        num_kinds_left_out=num_kinds_left_out,
        num_nodes_left_out=num_nodes_left_out,
        passes=view_passes(result),
        divergence=_list_divergence(result.divergence),
        describe_sizes=describe_sizes,
    )


def render_stored_page(directory: ExportDirectory) -> str:
    """The page of an export on disk; one that says what is wrong where its result cannot be read."""
    try:
        return render_report_page(directory.read_result())
    except FileNotFoundError:
        return render_broken_page(directory.path, f"There is no {directory.result.name}.")
    except (OSError, DataError) as error:
        return render_broken_page(directory.path, f"{directory.result.name} cannot be read: {error}")


def render_broken_page(path: Path, problem: str) -> str:
    """The page of an export of which nothing is known but where it lies."""
    return render_page("broken.html.j2", name=path.name, path=str(path), problem=problem)


def say_verdict(result: ExportResult, parity: ParityView) -> str:
    """What it came to, in a sentence or two."""
    if result.status is Status.unproven:
        return "Nothing was found wrong, and nothing is proven: ONNX Runtime cannot run the file here."
    if result.failure is not None:
        where = f"in the {result.failure.step} step" if result.failure.step else "before the first step"
        return f"It ended {where}; nothing was published."
    num_cases = len(result.cases)
    outputs = {1: "its output", 2: "both outputs"}.get(parity.num_outputs, f"all {parity.num_outputs:,} outputs")
    cases = "one case" if num_cases == 1 else f"each of {num_cases:,} cases"
    sentences = [f"ONNX Runtime agrees with PyTorch on {outputs} in {cases}{_say_nearest(result, parity)}."]
    if result.dims:
        short = [dim.name for dim in result.dims if dim.max not in dim.proven_sizes]
        sentences.append(
            f"Not tried at the maximum, for its size: {', '.join(short[:5])}."
            if short
            else "Every dim was proven from its minimum to its maximum."
        )
    if result.rescued_by:
        sentences.append(f"It needed a way round a failure: {', '.join(result.rescued_by)}.")
    return " ".join(sentences)


def _say_nearest(result: ExportResult, parity: ParityView) -> str:
    if parity.worst is None or parity.worst.share is None:
        return ""
    if not parity.worst.share:
        return ", bit for bit"
    told = f", with at most {say_share(parity.worst.share)} of the error that the limit allows"
    ratio = result.max_noise_ratio
    return f"{told} and {say_number(ratio)} times PyTorch's own rounding error" if ratio is not None else told


def _list_divergence(found: Divergence | None) -> list[tuple[str, str, bool]]:
    """Name, text, and whether the text is code; what is not known is left out."""
    if found is None:
        return []
    facts = [
        ("Node", f"{found.node} ({found.op_type})" if found.node else "", True),
        ("Value", found.value, True),
        ("Torch module", (found.module or "the model itself") if found.node else "", True),
        ("Source", found.source, True),
        ("PyTorch gives", found.expected, False),
        ("ONNX Runtime gives", found.actual, False),
        ("Largest difference", "" if found.max_abs_diff is None else say_number(found.max_abs_diff), False),
        ("In roundings", "" if found.roundings is None else say_number(found.roundings), False),
        ("Before it, at most", "" if found.roundings_before is None else say_number(found.roundings_before), False),
        ("Made by", ", ".join(found.suspects), True),
    ]
    return [fact for fact in facts if fact[1]]
