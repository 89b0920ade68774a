"""What became of a run, or how far it is: put together from the files that it writes, while it writes them.

Nothing is written, locked or waited for. A run that was killed has left whatever it has left; what is missing or broken
is told as unknown, or by another file.
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import psutil

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode
from exporter.files import read_json
from exporter.plain_data import DataError
from pipeline.estimate import Estimate
from pipeline.event_log import read_events
from pipeline.progress import BatchProgress
from registry_sync.record import BatchRecord, Outcome, RunDirectory

__all__ = ["ExportState", "RunPhase", "RunState", "read_run"]

# A process that began later than this after the batch is another one, which has got its number.
_SLACK_S = 60.0
# The worker's first words to its log; exporter.worker has them.
_PROCESS = re.compile(rb"export \S+, process (\d+), ")
_FIRST_WORDS_BYTES = 1 << 16


class RunPhase(StrEnum):
    """What a run is at."""

    running = "running"
    # The exports have ended; MLflow and DVC are being told.
    tracking = "tracking"
    ended = "ended"
    # It has neither ended nor is it alive.
    killed = "killed"
    # It runs, or ran, on another machine, and has not ended as far as its files say.
    elsewhere = "elsewhere"


@dataclass(kw_only=True)
class ExportState:
    """One export of a run; `state` is waiting, running, cut_off or an outcome (`registry_sync.record.Outcome`)."""

    id: str
    state: str
    # At work, or at which it failed or was cut off.
    step: str | None = None
    # So far, or at the end.
    duration_s: float | None = None
    # Resident memory now, of a worker on this machine.
    rss_bytes: int | None = None
    # Its last duration before this run.
    expected_s: float | None = None
    kind: str | None = None
    cause: str | None = None


@dataclass(kw_only=True)
class RunState:
    """One run, at the moment at which its files were read."""

    run: str
    phase: RunPhase
    # Of the batch, MLflow and DVC included; None while it runs, and for one that was killed.
    exit_code: int | None = None
    started_at: str | None = None
    last_event_at: str | None = None
    elapsed_s: float | None = None
    pid: int | None = None
    host: str | None = None
    command: list[str] = field(default_factory=list)
    exports: list[ExportState] = field(default_factory=list)
    # The time left, of a running one; both None while nothing is known.
    left_low_s: float | None = None
    left_high_s: float | None = None
    is_mlflow_behind: bool = False
    schema_version: int = 1

    @property
    def left(self) -> Estimate | None:
        return None if self.left_low_s is None else Estimate(self.left_low_s, self.left_high_s)


class _Reading:
    """What the events say, one after the other."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.exports: dict[str, ExportState] = {}
        self.progress: BatchProgress | None = None
        self.has_ended = False
        self.is_tracked = False
        self.exit_code: int | None = None
        self.last_at: str | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event.

        Raises:
            KeyError: It lacks something.
            ValueError: Something in it is not what it should be.
            TypeError: Likewise.
        """
        now_s = datetime.fromisoformat(event["time"]).timestamp()
        self.last_at = event["time"]
        match event["event"]:
            case "batch_started":
                self._begin(event, now_s)
            case "batch_ended":
                self.has_ended = True
                self.exit_code = int(event["exit_code"])
            case "tracking_ended":
                self.is_tracked = True
                self.exit_code = int(event["exit_code"])
            case _ if self.progress is not None and "export" in event:
                self._take_export(self.progress, event, now_s)

    def _begin(self, event: Mapping[str, Any], now_s: float) -> None:
        self.start = dict(event)
        expected_s = dict(event.get("expected_s") or dict.fromkeys(event["exports"]))
        self.progress = BatchProgress(len(event["exports"]), expected_s, int(event.get("workers") or 1), now_s)
        self.exports = {
            name: ExportState(id=name, state="waiting", expected_s=expected_s.get(name)) for name in event["exports"]
        }

    def _take_export(self, progress: BatchProgress, event: Mapping[str, Any], now_s: float) -> None:
        one = self.exports[event["export"]]
        match event["event"]:
            case "export_started":
                progress.start(one.id, now_s)
                one.state = "running"
            case "export_step":
                one.step = event["step"]
            case "export_retried":
                progress.retry(one.id)
                one.state, one.step = "waiting", None
            case "export_ended":
                outcome = Outcome(event["outcome"])
                progress.end(one.id, outcome, now_s)
                one.state, one.step = outcome.value, event.get("step")
                one.duration_s = event.get("duration_s")
                one.kind, one.cause = event.get("kind"), event.get("cause")


def read_run(run: RunDirectory) -> RunState:
    """Read the files of a run; there has to be one of events.jsonl and summary.json at least."""
    reading = _read_events(run)
    record = _read_summary(run)
    if record is not None:
        _adopt_summary(reading, record)
    now_s = time.time()
    phase = _find_phase(reading)
    state = RunState(
        run=str(run.path),
        phase=phase,
        exit_code=reading.exit_code if phase is RunPhase.ended else None,
        started_at=record.started_at if record else reading.start.get("time"),
        last_event_at=reading.last_at,
        pid=reading.start.get("pid"),
        host=reading.start.get("host"),
        command=list(record.command if record else reading.start.get("command", [])),
        exports=list(reading.exports.values()),
        is_mlflow_behind=record is not None and _is_mlflow_behind(run, record),
    )
    if phase is RunPhase.ended and state.is_mlflow_behind and not state.exit_code and not reading.is_tracked:
        # It was killed before it could say so.
        state.exit_code = ExitCode.SYNC_BEHIND
    _look_at_unfinished(run, state, reading, now_s)
    state.elapsed_s = record.duration_s if record else _measure(state, now_s)
    return state


def _read_events(run: RunDirectory) -> _Reading:
    reading = _Reading()
    try:
        for event in read_events(run.events):
            try:
                reading.take(event)
            except (KeyError, TypeError, ValueError):
                # Damaged, or a newer modelpress's; the others still tell the most.
                continue
    except OSError:
        pass
    return reading


def _read_summary(run: RunDirectory) -> BatchRecord | None:
    try:
        return run.read_summary()
    except (OSError, DataError):
        return None


def _adopt_summary(reading: _Reading, record: BatchRecord) -> None:
    """The summary has the last word on how exports ended; an event may be lost where the disk was full."""
    reading.has_ended = True
    if reading.exit_code is None:
        reading.exit_code = record.exit_code
    for export in record.exports:
        failure = export.failure
        reading.exports[export.id] = ExportState(
            id=export.id,
            state=export.outcome.value,
            step=failure.step.value if failure and failure.step else None,
            duration_s=export.duration_s,
            kind=failure.kind.value if failure else None,
            cause=failure.cause if failure else None,
        )


def _find_phase(reading: _Reading) -> RunPhase:
    pid, host = reading.start.get("pid"), reading.start.get("host")
    is_here = host == socket.gethostname()
    is_alive = is_here and isinstance(pid, int) and _is_alive(pid, reading.start["time"])
    if reading.exit_code == ExitCode.KILLED:
        # The next start has written its summary.
        return RunPhase.killed
    if reading.has_ended:
        return RunPhase.tracking if is_alive and not reading.is_tracked else RunPhase.ended
    if is_alive:
        return RunPhase.running
    return RunPhase.killed if is_here or host is None else RunPhase.elsewhere


def _is_alive(pid: int, started_at: str) -> bool:
    try:
        process = psutil.Process(pid)
        began_s = process.create_time()
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and began_s < datetime.fromisoformat(started_at).timestamp() + _SLACK_S
        )
    except (psutil.Error, ValueError):
        return False


def _is_mlflow_behind(run: RunDirectory, record: BatchRecord) -> bool:
    return record.tracking.mlflow and record.has_news and not run.mlflow_marker.exists()


def _look_at_unfinished(run: RunDirectory, state: RunState, reading: _Reading, now_s: float) -> None:
    """Of exports without an end among the events: a result that was written nevertheless, the step, the memory."""
    for one in state.exports:
        if one.state not in ("waiting", "running"):
            continue
        directory = ExportDirectory(run.export_directory(one.id))
        if state.phase is not RunPhase.running and _adopt_result(one, run):
            continue
        step = directory.read_current_step()
        if one.state == "running":
            one.step = step.value if step else one.step
        if state.phase is RunPhase.killed and one.state == "running":
            one.state = "cut_off"
        elif one.state == "running" and reading.progress is not None and one.id in reading.progress.running:
            one.duration_s = max(0.0, now_s - reading.progress.running[one.id].began_s)
            one.rss_bytes = _read_memory(directory, state.pid) if state.phase is RunPhase.running else None
    if state.phase in (RunPhase.running, RunPhase.elsewhere) and reading.progress is not None:
        left = reading.progress.estimate(now_s)
        if left is not None:
            state.left_low_s, state.left_high_s = left.low_s, left.high_s


def _adopt_result(one: ExportState, run: RunDirectory) -> bool:
    """Take over a result that the batch wrote before it could log an event; False if it was not published then."""
    try:
        result = read_json(run.result(one.id))
        if result["status"] == Outcome.passed:
            exports = run.path / read_json(run.plan)["exports"]
            if read_json(ExportDirectory(exports / one.id).result) != result:
                return False
        one.state, one.duration_s = Outcome(result["status"]).value, float(result["duration_s"])
        if result["failure"]:
            failure = result["failure"]
            one.step, one.kind, one.cause = failure["step"], failure["kind"], failure["cause"]
    except (OSError, DataError, KeyError, TypeError, ValueError):
        return False
    return True


def _read_memory(directory: ExportDirectory, batch_pid: int | None) -> int | None:
    """Resident memory of an export's worker, if it is found: a descendant of the batch, by what its log says."""
    try:
        with directory.log.open("rb") as file:
            found = _PROCESS.search(file.read(_FIRST_WORDS_BYTES))
        if found is None:
            return None
        worker = psutil.Process(int(found[1]))
        if batch_pid not in [parent.pid for parent in worker.parents()]:
            return None
        return int(worker.memory_info().rss)
    except (OSError, psutil.Error):
        return None


def _measure(state: RunState, now_s: float) -> float | None:
    """From the start until now, or until the last that was heard of it."""
    try:
        is_over = state.phase in (RunPhase.killed, RunPhase.ended)
        end_s = datetime.fromisoformat(str(state.last_event_at)).timestamp() if is_over else now_s
        return max(0.0, end_s - datetime.fromisoformat(str(state.started_at)).timestamp())
    except ValueError:
        return None
