"""Gathers the numbers of all exports for `dvc plots`, which wants a list where `dvc metrics` wants a file for each."""

from contextlib import suppress
from pathlib import Path

from exporter.files import read_json, write_json
from exporter.plain_data import DataError

__all__ = ["gather_metrics", "place_of_plot_data"]


def place_of_plot_data(metrics: str) -> Path:
    """`metrics.json` beside `metrics/`, where dvc.yaml's plots look for it."""
    folder = Path(metrics)
    return folder.with_name(f"{folder.name}.json")


def gather_metrics(metrics: str) -> None:
    """Write all files of the metrics folder into one, unless it is there.

    Raises:
        OSError: The disk would not.
    """
    rows = []
    for path in sorted(Path(metrics).glob("*.json")):
        with suppress(OSError, DataError):
            numbers = read_json(path)
            if isinstance(numbers, dict):
                rows.append({"export": path.stem, **numbers})
    target = place_of_plot_data(metrics)
    with suppress(OSError, DataError):
        if read_json(target) == rows:
            return
    if rows:
        write_json(target, rows)
