"""Draws memory over time, a curve for each process, as PNG and SVG; matplotlib comes with MLflow."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from exporter.probe import Probe, Way

_COLORS = {Way.dynamo: "tab:green", Way.torchscript: "tab:red", Way.eager: "tab:gray"}
_LABELS = {Way.dynamo: "dynamo export", Way.torchscript: "TorchScript export", Way.eager: "eager forward"}


def draw(title: str, probes: dict[Way, Probe], path: Path) -> None:
    """One figure: resident memory above the imports against the time since the export began.

    Args:
        title: Above the figure.
        probes: Those without a record (they failed) are left out.
        path: Without suffix; .png and .svg are added.
    """
    mpl.use("Agg")
    # Else each run gives other ids in the SVG.
    mpl.rcParams["svg.hashsalt"] = "modelpress"
    figure, axes = pyplot.subplots(figsize=(7, 3.5), dpi=100, layout="constrained")
    for way, probe in probes.items():
        record = probe.record
        if record.reason:
            continue
        # What comes before is the import of torch, the same for all.
        shown = [sample for sample in probe.samples if sample.at_s >= record.started_at_s - 0.2]
        axes.plot(
            [sample.at_s - record.started_at_s for sample in shown],
            [(sample.usage.rss_bytes - record.baseline_rss_bytes) / 2**20 for sample in shown],
            color=_COLORS[way],
            label=f"{_LABELS[way]}: {record.peak_bytes / 2**20:,.0f} MiB",
        )
    axes.set(title=title, xlabel="seconds since the export began", ylabel="MiB above the imports")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    for suffix in (".png", ".svg"):
        figure.savefig(
            path.with_name(path.name + suffix), metadata={"Software": None} if suffix == ".png" else {"Date": None}
        )
    pyplot.close(figure)
