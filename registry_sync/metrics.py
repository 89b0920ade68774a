"""The numbers of an export, and of a batch, that trackers compare over time."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from exporter.files import read_json, write_json
from exporter.limits import find_max_limit_share
from exporter.plain_data import DataError
from exporter.result import ExportResult
from registry_sync.record import ENDED, GOOD, BatchRecord, Outcome

__all__ = ["collect_batch_metrics", "collect_metrics", "collect_step_metrics", "write_metrics"]


def collect_metrics(result: ExportResult) -> dict[str, float]:
    """The headline numbers, units in their names; what was not measured is left out."""
    metrics: dict[str, float | int | None] = {
        "duration_s": result.duration_s,
        "max_abs_diff": result.max_abs_diff,
        "max_rel_diff": result.max_rel_diff,
        "max_limit_share": find_max_limit_share(result),
        "max_noise_ratio": result.max_noise_ratio,
        "max_rel_l2": result.max_rel_l2,
        "num_cases": len(result.cases),
        "export_peak_bytes": result.export_peak_bytes,
        "parity_peak_bytes": result.parity_peak_bytes,
        "cuda_peak_bytes": result.cuda_peak_bytes,
        "size_bytes": result.size_bytes,
        "num_parameters": result.num_parameters,
        "num_nodes": result.num_nodes,
        "latency_s": result.latency_s,
    }
    if (comparison := result.torchscript) is not None:
        metrics |= {
            "torchscript_peak_bytes": comparison.peak_bytes,
            "torchscript_s": comparison.duration_s,
            "dynamo_peak_bytes": comparison.dynamo_peak_bytes,
            "dynamo_s": comparison.dynamo_duration_s,
            "dynamo_share_of_torchscript_peak": comparison.dynamo_share,
        }
    return {name: value for name, value in metrics.items() if value is not None}


def write_metrics(folder: str, result: ExportResult) -> None:
    """Write an export's file for `dvc metrics`, unless it is there.

    Raises:
        OSError: The disk would not.
    """
    path = Path(folder, f"{result.id}.json")
    metrics = collect_metrics(result)
    with suppress(OSError, DataError):
        if read_json(path) == metrics:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, metrics)


def collect_step_metrics(result: ExportResult) -> dict[str, float]:
    """Time and memory of each step that was begun: times add up over all attempts, of memory the largest counts."""
    metrics: dict[str, float] = {}
    for record in result.steps:
        name = f"{record.step}_s"
        metrics[name] = metrics.get(name, 0.0) + record.duration_s
        measured = {
            "peak_bytes": result.peak_bytes(record.step),
            "delta_bytes": record.delta_bytes,
            "delta_anon_bytes": record.delta_anon_bytes,
            "cuda_peak_bytes": record.cuda_peak_bytes,
        }
        for kind, value in measured.items():
            name = f"{record.step}_{kind}"
            if value is not None:
                metrics[name] = max(value, metrics.get(name, value))
    return metrics


def collect_batch_metrics(record: BatchRecord, results: Mapping[str, ExportResult]) -> dict[str, float]:
    """Of a batch as a whole: counts by outcome, sums, and the worst of each of what one would not want to grow."""
    passed = [results[export.id] for export in record.exports if export.outcome in GOOD and export.id in results]
    worst: dict[str, list[float | None]] = {
        "worst_max_abs_diff": [result.max_abs_diff for result in passed],
        "worst_max_noise_ratio": [result.max_noise_ratio for result in passed],
        "worst_export_peak_bytes": [export.export_peak_bytes for export in record.exports],
        "worst_latency_s": [export.latency_s for export in record.exports],
    }
    known = {name: [value for value in values if value is not None] for name, values in worst.items()}
    return {
        **{f"num_{outcome.value}": record.count(outcome) for outcome in Outcome},
        "num_exports": len(record.exports),
        "num_rescued": sum(1 for export in record.exports if export.rescued_by),
        "duration_s": record.duration_s,
        "sum_duration_s": sum(export.duration_s for export in record.exports if export.outcome in ENDED),
        "sum_size_bytes": sum(export.size_bytes for export in record.exports if export.outcome in GOOD),
        **{name: max(values) for name, values in known.items() if values},
    }
