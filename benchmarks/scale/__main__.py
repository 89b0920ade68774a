"""How the parent of a batch scales: from ten exports to ten thousand that cost nothing by themselves.

`python -m benchmarks.scale OUT_DIR` runs batches of stub exports through the planner, the scheduler, the publication
and the summary that real exports go through. Each batch has a fresh process; the table goes to stdout and to scale.md,
CPU time and memory per export to scale.png and scale.svg. Both have to stay flat as the number grows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.scale.batch import ScaleRecord, Way
from benchmarks.scale.figure import draw

SIZES = (10, 30, 100, 300, 1000, 3000, 10000)
_ROOT = Path(__file__).resolve().parents[2]
_HEADER = (
    "| way | exports | CPU, ms per export | fsync, ms per export | on the clock, ms per export "
    "| memory, KiB per export | peak, MiB |"
)


def main() -> None:
    """Run all batches, print the table, draw the figure."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    records = []
    lines = [_HEADER, "|---" * 7 + "|"]
    print("\n".join(lines))
    for size in options.sizes:
        for record in measure(options, size):
            records.append(record)
            lines.append(make_row(record))
            print(lines[-1], flush=True)
    (options.out / "scale.md").write_text("\n".join([*lines, ""]))
    draw(records, options.out / "scale")


def parse() -> argparse.Namespace:
    """The command line; argparse ends the process where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.partition("\n\n")[0] if __doc__ else None
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the results go; created if missing")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="exports in a batch")
    parser.add_argument("--ways", type=Way, nargs="+", choices=list(Way), default=list(Way), help="(default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="where the batches write, on which disk they wait (default: the temporary one)"
    )
    return parser.parse_args()


def measure(options: argparse.Namespace, size: int) -> list[ScaleRecord]:
    """Run a batch of this size in each way, in folders that are gone afterwards."""
    records = []
    if Way.processes in options.ways:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            records.append(run_batch(folder, Way.processes, size, options.workers))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # The second one finds what the first one has published.
        for way in (Way.in_process, Way.up_to_date):
            record = run_batch(folder, way, size, options.workers)
            if way in options.ways:
                records.append(record)
    return records


def run_batch(folder: str, way: Way, size: int, workers: int) -> ScaleRecord:
    """Run one batch in a process of its own.

    Raises:
        CalledProcessError: The batch failed; its words are on standard error.
    """
    program = "from benchmarks.scale.batch import main; main()"
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", program, way, str(size), str(workers)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return ScaleRecord.read(json.loads(done.stdout))


def make_row(record: ScaleRecord) -> str:
    """A line of the table."""
    size = record.num_exports
    cells = (
        record.way,
        f"{size:,}",
        f"{record.cpu_per_export_s * 1000:.2f}",
        f"{record.fsync_s / size * 1000:.2f}",
        f"{record.wall_s / size * 1000:.2f}",
        f"{record.memory_per_export_bytes / 1024:.1f}",
        f"{record.peak_rss_bytes / 2**20:.0f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
