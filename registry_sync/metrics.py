"""The numbers of an export that trackers compare over time."""

from exporter.result import ExportResult

__all__ = ["collect_metrics", "collect_step_metrics"]


def collect_metrics(result: ExportResult) -> dict[str, float]:
    """The headline numbers, units in their names; what was not measured is left out."""
    metrics: dict[str, float | int | None] = {
        "duration_s": result.duration_s,
        "max_abs_diff": result.max_abs_diff,
        "max_rel_diff": result.max_rel_diff,
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


def collect_step_metrics(result: ExportResult) -> dict[str, float]:
    """Time and peak memory of each step that was begun, over all attempts."""
    metrics: dict[str, float] = {}
    for record in result.steps:
        metrics[f"{record.step}_s"] = metrics.get(f"{record.step}_s", 0.0) + record.duration_s
        measured = {
            "peak_bytes": result.peak_bytes(record.step),
            "delta_bytes": record.delta_bytes,
            "delta_anon_bytes": record.delta_anon_bytes,
            "cuda_peak_bytes": record.cuda_peak_bytes,
        }
        metrics.update({f"{record.step}_{name}": value for name, value in measured.items() if value is not None})
    return metrics
