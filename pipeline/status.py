"""The command `python -m pipeline.status`: how far a running batch is, or what became of one that has ended.

It only reads, so it may be asked at any time, by anybody who may read the files.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.live import Live
from rich.text import Text

from exporter.errors import ConfigError, ExitCode, ModelpressError
from exporter.plain_data import to_plain
from pipeline.console import OwnConsole
from pipeline.event_log import read_events
from pipeline.outcome_table import STYLES
from pipeline.quantities import say_bytes, say_clock, say_duration, say_rest
from pipeline.run_state import ExportState, RunPhase, RunState, read_run
from pipeline.streams import duplicate, escape
from registry_sync.record import Outcome, RunDirectory

__all__ = ["find_run", "main", "show_status"]

_RUNS = Path("runs")
_FOLLOW_S = 1.0
_MAX_LINES = 30
_ORDER = ("running", "cut_off", "failed", "unproven", "cancelled", "waiting", "passed", "up_to_date")
_STYLES = {outcome.value: style for outcome, style in STYLES.items()} | {"cut_off": "bold red", "running": "bold"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.status", description=__doc__)
    parser.add_argument(
        "run", nargs="?", type=Path, default=_RUNS, help="a run's directory, or one that holds runs; without: runs/"
    )
    parser.add_argument("--json", action="store_true", help="for machines; docs/progress.md has the keys")
    parser.add_argument("--follow", action="store_true", help="until the batch has ended")
    parsed = parser.parse_args(arguments)
    try:
        run = find_run(parsed.run)
        return show_status(run, as_json=parsed.json, follow=parsed.follow)
    except ModelpressError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def find_run(path: Path, exports: Collection[str] = ()) -> RunDirectory:
    """The run that a path names, or the newest one in it.

    Args:
        path: Of a run, or of a directory of runs.
        exports: Only a run of exactly these exports will do.

    Raises:
        ConfigError: There is no such run.
    """
    for place in (path, _RUNS / path):
        if _is_run(place):
            return RunDirectory(place)
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such run; name a directory under {_RUNS}/")
    found = [place for place in sorted(path.iterdir(), reverse=True) if _is_run(place)]
    if not found:
        raise ConfigError(f"{path}: there is no run in it")
    for place in found:
        if not exports or _list_exports(RunDirectory(place)) == set(exports):
            return RunDirectory(place)
    raise ConfigError(f"{path}: there is no run of {', '.join(sorted(exports))} in it")


def _is_run(path: Path) -> bool:
    if path.name.startswith("."):
        # One that is being made.
        return False
    run = RunDirectory(path)
    return run.events.is_file() or run.summary.is_file()


def _list_exports(run: RunDirectory) -> set[str]:
    try:
        return {str(name) for event in read_events(run.events) for name in event.get("exports", ())}
    except (OSError, TypeError):
        return set()


def show_status(run: RunDirectory, *, as_json: bool = False, follow: bool = False) -> int:
    """Print the state of a run, once or until it has ended.

    Returns:
        0 while it runs, and for one that went well; else the batch's own exit code, 137 for one that was killed.
    """
    state = read_run(run)
    console = OwnConsole(duplicate(sys.stdout))
    if follow:
        state = _follow(run, state, console, as_json=as_json)
    try:
        if as_json:
            console.file.write(json.dumps(to_plain(state), indent=2) + "\n")
            console.file.flush()
        elif not (follow and console.is_live):
            console.print(_render(state), soft_wrap=True)
    except OSError:
        # The reader has gone; the exit code still tells.
        console.silence()
    return _judge(state)


def _follow(run: RunDirectory, state: RunState, console: OwnConsole, *, as_json: bool) -> RunState:
    if as_json or not console.is_live:
        while not _is_over(state):
            time.sleep(_FOLLOW_S)
            state = read_run(run)
        return state
    with Live(_render(state), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not _is_over(state):
            time.sleep(_FOLLOW_S)
            state = read_run(run)
            live.update(_render(state), refresh=True)
    return state


def _is_over(state: RunState) -> bool:
    return state.phase in (RunPhase.ended, RunPhase.killed)


def _judge(state: RunState) -> int:
    if state.phase is RunPhase.killed:
        return ExitCode.KILLED
    return state.exit_code or ExitCode.OK


def _render(state: RunState) -> Text:
    counts = Counter(one.state for one in state.exports)
    told = [f"{counts[name]} {_words(name)}" for name in _ORDER if counts[name]]
    left = f"; {say_rest(state.left)}" if state.phase is RunPhase.running else ""
    text = Text(f"{state.run}: {_describe_phase(state)}\n", "bold")
    text.append(f"{len(state.exports)} export{'' if len(state.exports) == 1 else 's'}: {', '.join(told)}{left}\n", "")
    for name in _ORDER:
        for line in _render_group(name, [one for one in state.exports if one.state == name]):
            text.append(f"{line}\n", _STYLES.get(name, ""))
    for line in _advise(state, counts):
        text.append(f"{line}\n")
    text.rstrip()
    return text


def _describe_phase(state: RunState) -> str:
    clock = say_clock(state.elapsed_s) if state.elapsed_s is not None else "an unknown time"
    who = f"process {state.pid} on {state.host}"
    match state.phase:
        case RunPhase.running:
            return f"running for {clock} ({who})"
        case RunPhase.tracking:
            return f"its exports have ended, MLflow and DVC are being told ({who})"
        case RunPhase.ended:
            return f"ended after {clock} with exit code {state.exit_code}"
        case RunPhase.elsewhere:
            return f"began on another machine ({who}), last heard of at {state.last_event_at}"
        case RunPhase.killed:
            return f"was killed, or crashed, after {clock} or later ({who} is gone)"


def _render_group(name: str, exports: Sequence[ExportState]) -> Iterator[str]:
    if name in ("waiting", "up_to_date") and exports:
        names = ", ".join(one.id for one in exports[:_MAX_LINES])
        more = f" and {len(exports) - _MAX_LINES} more" if len(exports) > _MAX_LINES else ""
        yield f"{_words(name):<10}  {names}{more}"
        return
    width = max((len(one.id) for one in exports[:_MAX_LINES]), default=0)
    for one in exports[:_MAX_LINES]:
        yield f"{_words(name):<10}  {one.id:<{width}}  {escape(_describe(one))}".rstrip()
    if len(exports) > _MAX_LINES:
        yield f"{_words(name):<10}  and {len(exports) - _MAX_LINES} more"


def _describe(one: ExportState) -> str:
    if one.state == "running":
        clock = say_clock(one.duration_s or 0.0)
        memory = f"  {say_bytes(one.rss_bytes):>8}" if one.rss_bytes is not None else ""
        return f"{one.step or 'starting':<8} {clock:>7}{memory}"
    if one.cause is not None:
        return f"{one.step or 'start'}: {one.kind}: {one.cause}"
    if one.state == "cut_off":
        return f"at {one.step}" if one.step else "before its first step"
    return say_duration(one.duration_s) if one.duration_s is not None and one.state == Outcome.passed else ""


def _advise(state: RunState, counts: Counter[str]) -> Iterator[str]:
    num_kept = counts[Outcome.passed] + counts[Outcome.up_to_date]
    if state.phase is RunPhase.killed:
        num_due = len(state.exports) - num_kept
        again = f": python -m pipeline {shlex.join(state.command)}" if state.command else ""
        yield f"next run: {num_kept} published and kept, {num_due} to export; the same command does it{again}"
    if state.phase is RunPhase.ended and state.is_mlflow_behind:
        yield f"MLflow is behind; catch up with: python -m registry_sync sync {state.run}"


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
