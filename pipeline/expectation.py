"""What an export will probably need, by what it needed the last time: memory, for admission; time, for the display.

A guess only. What is wrong with it costs time, never a result: an export that needs more than was expected and is
killed for it is tried once more alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.checkpoint import CheckpointError, find_files
from exporter.directory import ExportDirectory
from exporter.files import read_json
from exporter.plain_data import DataError
from exporter.spec import ExportSpec
from registry_sync.record import RunDirectory

__all__ = ["Expectation", "expect", "find_recent_runs"]

# Of an export that has no result yet: the largest of the zoo needs 0.9 GiB.
_UNKNOWN_BYTES = 1 << 30
# Parity holds the module in float64 beside itself, where there is room for that.
_COPIES_OF_WEIGHTS = 3
# Pages of the server that a worker writes to, and so has for itself; resident memory does not show them.
_COPIED_BYTES = 128 << 20
# Nightly runs pile up; one that failed for longer than this is as good as new.
_MAX_RUNS = 20


@dataclass(frozen=True)
class Expectation:
    """Of one export; the time is None for one that has no result yet."""

    memory_bytes: int = _UNKNOWN_BYTES
    duration_s: float | None = None


def find_recent_runs(runs: Path) -> list[RunDirectory]:
    """The last runs, the newest first; their names begin with the time."""
    return [RunDirectory(path) for path in sorted(runs.iterdir(), reverse=True)[:_MAX_RUNS]] if runs.is_dir() else []


def expect(spec: ExportSpec, exports: Path, recent: Sequence[RunDirectory]) -> Expectation:
    """Guess from the published result, else from the last one in a run, else from the checkpoint's size."""
    for path in (ExportDirectory(exports / spec.id).result, *(run.result(spec.id) for run in recent)):
        try:
            result = read_json(path)
            return Expectation(_read_memory(result), float(result["duration_s"]))
        except (OSError, DataError, KeyError, TypeError, ValueError):
            # Another version's, or broken: no help, and no harm.
            continue
    return Expectation(_UNKNOWN_BYTES + _COPIES_OF_WEIGHTS * _measure_weights(spec))


def _read_memory(result: Any) -> int:
    peaks = [step["peak_rss_bytes"] for step in result["steps"] if step["peak_rss_bytes"] is not None]
    if not peaks:
        raise ValueError("nothing was measured")
    return max(0, int(max(peaks)) - int(result["baseline_rss_bytes"])) + _COPIED_BYTES


def _measure_weights(spec: ExportSpec) -> int:
    if spec.model.weights is None:
        return 0
    try:
        return sum(path.stat().st_size for path in find_files(Path(spec.model.weights)))
    except (OSError, CheckpointError):
        return 0
