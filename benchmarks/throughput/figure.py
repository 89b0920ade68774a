"""Draws the throughput of all contenders as bars, as PNG and SVG; matplotlib comes with MLflow."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.throughput.table import Summary

__all__ = ["draw"]


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """One bar for each contender: exports per minute at the median, with the range over all rounds.

    Args:
        summaries: At least one.
        path: Without suffix; .png and .svg are added.
    """
    mpl.use("Agg")
    # Else each run gives other ids in the SVG.
    mpl.rcParams["svg.hashsalt"] = "modelpress"
    shown = list(reversed(summaries))
    height = 1.0 + 0.45 * len(shown)
    figure, axes = pyplot.subplots(figsize=(8, height), dpi=100, layout="constrained")
    rates = [60 * item.exports_per_s for item in shown]
    slowest = [60 * item.num_exports / item.highest_wall_s for item in shown]
    fastest = [60 * item.num_exports / item.lowest_wall_s for item in shown]
    bars = axes.barh(
        [f"({item.key}) {item.label}, {item.num_exports} models" for item in shown],
        rates,
        xerr=[
            # Where both are one round's, they may differ by a rounding error.
            [max(0.0, rate - low) for rate, low in zip(rates, slowest, strict=True)],
            [max(0.0, high - rate) for rate, high in zip(rates, fastest, strict=True)],
        ],
        color=["tab:green" if item.key.startswith("c") else "tab:gray" for item in shown],
    )
    axes.bar_label(bars, [f"{rate:.1f}" for rate in rates], padding=6)
    axes.set(xlabel="exports per minute, more is better")
    axes.set_xlim(right=1.12 * max(fastest))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    for suffix in (".png", ".svg"):
        figure.savefig(
            path.with_name(path.name + suffix), metadata={"Software": None} if suffix == ".png" else {"Date": None}
        )
    pyplot.close(figure)
