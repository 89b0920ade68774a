"""Draws CPU time and memory per export over the number of exports, a curve for each way, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.scale.batch import ScaleRecord, Way

__all__ = ["draw"]

_COLORS = {Way.processes: "tab:red", Way.in_process: "tab:green", Way.up_to_date: "tab:blue"}
_LABELS = {
    Way.processes: "real processes",
    Way.in_process: "results written by the parent",
    Way.up_to_date: "all up to date",
}


def draw(records: Sequence[ScaleRecord], path: Path) -> None:
    """One figure of two parts.

    Args:
        records: In the order of the number of exports.
        path: Without suffix; .png and .svg are added.
    """
    mpl.use("Agg")
    # Else each run gives other ids in the SVG.
    mpl.rcParams["svg.hashsalt"] = "modelpress"
    figure, (left, right) = pyplot.subplots(ncols=2, figsize=(9, 3.5), dpi=100, layout="constrained")
    for way in dict.fromkeys(record.way for record in records):
        shown = [record for record in records if record.way is way]
        sizes = [record.num_exports for record in shown]
        style = {"color": _COLORS[way], "marker": "o", "markersize": 4, "label": _LABELS[way]}
        left.plot(sizes, [record.cpu_per_export_s * 1000 for record in shown], **style)
        right.plot(sizes, [record.memory_per_export_bytes / 1024 for record in shown], **style)
    left.set(title="CPU time of the parent", ylabel="ms per export")
    right.set(title="memory of the parent above its imports", ylabel="KiB per export")
    for axes in (left, right):
        axes.set(xlabel="exports in the batch", xscale="log")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.legend()
    for suffix in (".png", ".svg"):
        figure.savefig(
            path.with_name(path.name + suffix), metadata={"Software": None} if suffix == ".png" else {"Date": None}
        )
    pyplot.close(figure)
