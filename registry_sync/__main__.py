"""The command `python -m registry_sync`: catch up with MLflow, verify what is published."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, IntegrityError, ModelpressError, SyncError
from exporter.plain_data import DataError
from registry_sync.record import RunDirectory

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Run the command line; returns the exit code."""
    parsed = _make_parser().parse_args(arguments)
    try:
        if parsed.command == "sync":
            lines = _sync(
                [RunDirectory(path) for path in parsed.runs] or _find_pending(Path("runs")), parsed.tracking_uri
            )
        else:
            lines = _verify(parsed.exports or sorted(path for path in Path("exports").glob("*") if path.is_dir()))
        for line in lines:
            print(line)
    except ModelpressError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m registry_sync", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="log batches that MLflow has not heard of")
    sync.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="directories under runs/; without: all")
    sync.add_argument("--tracking-uri", help="instead of the one the batch was run with")
    verify = commands.add_parser("verify", help="hash published files and hold them against their records")
    verify.add_argument(
        "exports", nargs="*", type=Path, metavar="EXPORT", help="directories under exports/; without: all"
    )
    return parser


def _find_pending(runs: Path) -> list[RunDirectory]:
    found = [RunDirectory(path) for path in sorted(runs.glob("*")) if (path / "summary.json").is_file()]
    return [run for run in found if not run.mlflow_marker.exists()]


def _sync(runs: list[RunDirectory], uri: str | None) -> Iterator[str]:
    """Log each run; one that MLflow does not take is told at the end, after the others were tried."""
    behind: list[str] = []
    num_logged = 0
    for run in runs:
        try:
            record = run.read_summary()
        except FileNotFoundError as error:
            raise ConfigError(f"{run.path}: no summary.json there; name the directory of a finished run") from error
        except DataError as error:
            raise ConfigError(str(error)) from error
        if not record.has_news:
            continue
        if uri is not None:
            record.tracking.uri = uri
        elif not record.tracking.mlflow:
            continue
        # Takes a second to import, and is not needed to find that there is nothing to do.
        from registry_sync import mlflow_log

        try:
            yield f"{record.run_id}: {mlflow_log.log_batch(run, record, record.tracking)}"
            num_logged += 1
        except SyncError as error:
            behind.append(f"{record.run_id}: {error}")
    if behind:
        raise SyncError("MLflow is behind:\n" + "\n".join(behind))
    if not num_logged:
        yield "nothing to sync"


def _verify(paths: Sequence[Path]) -> Iterator[str]:
    """Hash every file; damage is told at the end, after all were read."""
    damage: list[str] = []
    for path in paths:
        directory = ExportDirectory(path)
        try:
            damaged = directory.damaged_files(directory.read_result())
        except (OSError, DataError) as error:
            damaged = [f"no readable result.json ({error})"]
        if damaged:
            damage.append(f"{path}: {', '.join(damaged)}")
        else:
            yield f"{path}: ok"
    if damage:
        raise IntegrityError(
            "\n".join([*damage, "export again with force=true, or dvc checkout the last good version"])
        )
    if not paths:
        yield "nothing published"


if __name__ == "__main__":
    sys.exit(main())
