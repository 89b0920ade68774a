"""The command `python -m registry_sync`: catch up with MLflow and DVC, verify what is published, promote releases."""

import argparse
import dataclasses
import errno
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from exporter.directory import ExportDirectory
from exporter.errors import (
    ConfigError,
    ExitCode,
    IntegrityError,
    ModelpressError,
    StorageError,
    SyncError,
    choose_worst,
)
from exporter.plain_data import DataError
from exporter.result import Status
from registry_sync.bounded import Budget, call_bounded
from registry_sync.catch_up import commit_runs
from registry_sync.dvc_commit import suggest_git
from registry_sync.dvc_transfer import pull, push
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.redaction import redact
from registry_sync.release import register_pending
from registry_sync.release_commands import add_release_commands, run_release_command
from registry_sync.release_manifest import RELEASES
from registry_sync.release_verification import verify_releases

__all__ = ["main"]


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_TRANSFERS = {"push": push, "pull": pull}


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Run the command line; returns the exit code."""
    parsed = _make_parser().parse_args(arguments)
    try:
        _print(_run(parsed))
    except ModelpressError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", ExitCode.INTERRUPTED)
    except OSError as error:
        return _complain(_describe_fault(error), ExitCode.STORAGE)
    return ExitCode.OK


def _run(parsed: argparse.Namespace) -> Iterator[str]:
    if hasattr(parsed, "run"):
        yield from run_release_command(parsed)
    elif parsed.command == "sync":
        yield from _sync([_name_run(path) for path in parsed.runs], parsed.tracking_uri, parsed.budget_s)
    elif parsed.command in _TRANSFERS:
        yield from _TRANSFERS[parsed.command](parsed.exports, parsed.remote, parsed.jobs)
    else:
        yield from _verify_all(parsed.exports, parsed.public_key)


def _print(lines: Iterator[str]) -> None:
    """Print lines as they come; where the reader goes away, what we were asked to do is done all the same."""
    try:
        for line in lines:
            try:
                print(line)
            except BrokenPipeError:
                _silence()
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            _silence()


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def _complain(message: str, code: ExitCode) -> ExitCode:
    with suppress(OSError):
        print(redact(message), file=sys.stderr)
    return code


def _describe_fault(error: OSError) -> str:
    advice = "; free some space, then run the same command again" if error.errno in _NO_SPACE else ""
    return f"{error}{advice}"


class _Parser(argparse.ArgumentParser):
    """What it complains of quotes the command line, and with it a tracking URI."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m registry_sync", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser(
        "sync", help="log batches that MLflow has not heard of, commit exports that DVC does not have"
    )
    sync.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="directories under runs/; without: all")
    sync.add_argument("--tracking-uri", help="instead of the one the batch was run with")
    sync.add_argument("--budget-s", type=float, metavar="SECONDS", help="longest wait for MLflow over one batch")
    verify = commands.add_parser("verify", help="hash published files and hold them against their records")
    verify.add_argument(
        "exports", nargs="*", type=Path, metavar="EXPORT", help="directories under exports/; without: all"
    )
    verify.add_argument(
        "--public-key", type=Path, metavar="FILE", help="releases have to be signed with its other half"
    )
    _add_transfers(commands)
    add_release_commands(commands)
    return parser


def _add_transfers(commands: Any) -> None:
    for name, text in (
        ("push", "dvc push, once every export in DVC's cache is found to be as recorded"),
        ("pull", "dvc pull of the exports that come as recorded"),
    ):
        transfer = commands.add_parser(name, help=text)
        transfer.add_argument("exports", nargs="*", type=Path, metavar="EXPORT", help="what DVC tracks; without: all")
        transfer.add_argument("-r", "--remote", metavar="NAME", help="instead of DVC's default remote")
        transfer.add_argument("-j", "--jobs", type=int, metavar="N", help="files at a time")


def _name_run(path: Path) -> RunDirectory:
    run = RunDirectory(path)
    try:
        run.read_summary()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: no summary.json there; name the directory of a finished run") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    return run


def _sync(named: list[RunDirectory], uri: str | None, budget_s: float | None) -> Iterator[str]:
    """Catch up with MLflow, with DVC whatever became of that, and with releases unless runs are named."""
    found = named or [RunDirectory(path.parent) for path in sorted(Path("runs").glob("*/summary.json"))]
    pending = named or [run for run in found if not run.mlflow_marker.exists()]
    parts = [_sync_mlflow(pending, uri, budget_s), commit_runs(found)]
    if not named:
        parts.append(register_pending(RELEASES, uri, budget_s))
    told: list[str] = []
    # Last, so that what was done is in it.
    parts.append(_suggest_git(found, told))
    for line in _run_parts(parts):
        told.append(line)
        yield line
    if not told:
        yield "nothing to sync"


def _suggest_git(runs: Sequence[RunDirectory], told: Sequence[str]) -> Iterator[str]:
    """The line for git, if anything was done."""
    for run in reversed(runs):
        if not told:
            return
        with suppress(OSError, DataError):
            record = run.read_summary()
            if record.tracking.dvc and (line := suggest_git(record)):
                yield line
            return


def _run_parts(parts: Iterable[Iterator[str]]) -> Iterator[str]:
    """One part after the other, whatever becomes of each; what failed is told at the end, by the worst exit code."""
    failures: list[ModelpressError] = []
    for lines in parts:
        try:
            yield from lines
        except ModelpressError as error:
            failures.append(error)
        except DataError as error:
            failures.append(SyncError(str(error)))
        except OSError as error:
            failures.append(StorageError(_describe_fault(error)))
    worst = choose_worst(*(error.exit_code for error in failures))
    for failure in failures:
        if failure.exit_code is worst:
            raise type(failure)("\n".join(map(str, failures)))


def _sync_mlflow(runs: list[RunDirectory], uri: str | None, budget_s: float | None) -> Iterator[str]:
    """Log each run. A broken one does not keep back the others; a store that does not answer does."""
    behind: list[str] = []
    for index, run in enumerate(runs):
        try:
            record = run.read_summary()
            if not record.has_news or (uri is None and not record.tracking.mlflow):
                continue
            options = dataclasses.replace(record.tracking, uri=uri or record.tracking.uri)
            budget = Budget(budget_s or options.budget_s)
            line = call_bounded(functools.partial(_log, run, record, options, budget), budget, "MLflow")
            yield f"{record.run_id}: {line}"
        except (OSError, DataError) as error:
            behind.append(str(error))
        except SyncError as error:
            behind.append(f"{run.path}: {error}")
            if len(runs) > index + 1:
                behind.append(f"{len(runs) - index - 1} more runs were not tried")
            break
    if behind:
        raise SyncError("MLflow is behind:\n" + "\n".join(behind))


def _log(run: RunDirectory, record: BatchRecord, options: TrackingOptions, budget: Budget) -> str:
    # Takes a second to import, and is not needed to find that there is nothing to do.
    from registry_sync import mlflow_log

    return mlflow_log.log_batch(run, record, options, budget)


def _verify_all(exports: Sequence[Path], public_key: Path | None) -> Iterator[str]:
    """The exports that are named; or else all, and all releases."""
    found = exports or sorted(path for path in Path("exports").glob("*") if path.is_dir())
    parts = [_verify(found)] if exports else [_verify(found), verify_releases(RELEASES, public_key)]
    yield from _run_parts(parts)


def _verify(paths: Sequence[Path]) -> Iterator[str]:
    """Hash every file; damage is told at the end, after all were read."""
    damage: list[str] = []
    for path in paths:
        directory = ExportDirectory(path)
        try:
            result = directory.read_result()
            damaged = directory.damaged_files(result) if result.status is Status.passed else ["the export did not pass"]
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
    code = main()
    # A call that was given up may still be at work in its thread, and would keep the interpreter.
    os._exit(code)
