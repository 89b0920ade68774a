"""The command `python -m registry_sync sync`: brings MLflow up to date with batches that it has not heard of."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.errors import ExitCode, SyncError
from exporter.plain_data import DataError
from registry_sync.record import RunDirectory

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m registry_sync", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="log batches that MLflow has not heard of")
    sync.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="directories under runs/; all if none is given")
    sync.add_argument("--tracking-uri", help="instead of the one the batch was run with")
    parsed = parser.parse_args(arguments)
    return _sync([RunDirectory(path) for path in parsed.runs] or _find_pending(Path("runs")), parsed.tracking_uri)


def _find_pending(runs: Path) -> list[RunDirectory]:
    found = [RunDirectory(path) for path in sorted(runs.glob("*")) if (path / "summary.json").is_file()]
    return [run for run in found if not run.mlflow_marker.exists()]


def _sync(runs: list[RunDirectory], uri: str | None) -> ExitCode:
    worst = ExitCode.OK
    for run in runs:
        try:
            record = run.read_summary()
        except FileNotFoundError:
            print(f"{run.path}: no summary.json there; give a directory of a finished run", file=sys.stderr)
            return ExitCode.CONFIG
        except DataError as error:
            print(error, file=sys.stderr)
            return ExitCode.CONFIG
        if not record.tracking.mlflow and uri is None:
            continue
        if uri is not None:
            record.tracking.uri = uri
        from registry_sync import mlflow_log

        try:
            print(f"{record.run_id}: {mlflow_log.log_batch(run, record, record.tracking)}")
        except SyncError as error:
            print(f"{record.run_id}: MLflow is behind: {error}", file=sys.stderr)
            worst = ExitCode.SYNC_BEHIND
    if not runs:
        print("nothing to sync")
    return worst


if __name__ == "__main__":
    sys.exit(main())
