"""What a signal does to a batch at moments that are hard to meet: exports that end with it, handlers on their way."""

import os
import signal
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from stub_executor import StubExecutor, make_jobs, write_export

from exporter.directory import ExportDirectory
from exporter.errors import ExitCode
from pipeline.batch import run_batch
from pipeline.cli import run
from pipeline.executor import Ended, Ending, Event, Pulse, Started, Task
from registry_sync.record import RunDirectory

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED),
    (signal.SIGTERM, ExitCode.TERMINATED),
    (signal.SIGHUP, ExitCode.HUNG_UP),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch) -> Iterator[None]:
    """An empty one, and this process's handlers of signals as they were."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number, _ in SIGNALS}
    # Under nohup it is ignored, and a batch leaves that so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class EndsTogether(StubExecutor):
    """All but the last end in the moment in which a signal comes; the last one is at work."""

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        if not tasks:
            # Of second tries, of which there are none.
            return
        yield from map(Started, tasks)
        for task in tasks:
            write_export(ExportDirectory(task.directory))
        os.kill(os.getpid(), signal.SIGTERM)
        for task in tasks[:-1]:
            yield Ended(task, Ending.exited, 0, 0.0)
        yield Pulse({})
        yield Ended(tasks[-1], Ending.exited, 0, 0.0)


def test_all_exports_that_ended_when_the_stop_came_are_kept():
    assert run_batch(make_jobs("a", "b", "c", "d"), [], EndsTogether()) is ExitCode.TERMINATED
    (path,) = Path("runs").iterdir()
    outcomes = {export.id: export.outcome for export in RunDirectory(path).read_summary().exports}
    assert outcomes == {"a": "passed", "b": "passed", "c": "passed", "d": "cancelled"}
    assert {path.name for path in Path("exports").iterdir()} == {"a", "b", "c"}


class HearsWhileItCloses(StubExecutor):
    is_closed = False

    def close(self, *, at_once: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        self.is_closed = True


def test_a_signal_does_not_keep_an_executor_from_its_end():
    executor = HearsWhileItCloses()
    assert run_batch(make_jobs("a"), [], executor) is ExitCode.OK
    assert executor.is_closed


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_before_the_batch_has_begun_ends_the_command_without_a_traceback(monkeypatch, capfd, number, code):
    install = signal.signal
    sent = []

    def install_and_send(which, handler):
        """The last of the batch's handlers is installed, and nothing has begun that would catch what they raise."""
        before = install(which, handler)
        if which == signal.SIGHUP and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_send)
    assert run(["modelpress", "+model=mlp", "tracking=off"]) is code
    assert sent == [number]
    assert capfd.readouterr().err == ""
    assert not Path("runs").exists()
