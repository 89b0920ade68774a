import os
import subprocess
import sys
import time

import pytest

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import HINTS, make_failure
from exporter.files import write_json
from exporter.result import Status, Step
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from pipeline.executor import Ended, Ending, Task
from pipeline.outcomes import collect_result, fail_result

SPEC = ExportSpec(
    id="net",
    model=ModelSpec(name="net", source={"_target_": "my.Net"}, inputs={"x": Input(shape=[1])}),
    precision=Precision(PrecisionName.fp32, rtol=0.1, atol=0.1),
)

# As on a full disk: every write to a file fails, in the worker and in who looks after it.
ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from exporter.directory import ExportDirectory
from exporter.errors import StorageError
from pipeline.executor import Ended, Ending, Task
from pipeline.outcomes import collect_result
directory = ExportDirectory(Path(sys.argv[1]))
spec = directory.read_spec()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    print(collect_result(spec, Ended(Task("net", directory.path), Ending.exited, 74, 1.0)).failure.kind)
except StorageError:
    print("storage_error")
"""


@pytest.fixture
def directory(tmp_path):
    return ExportDirectory(tmp_path)


def end(directory: ExportDirectory, ending: Ending, code: int) -> Ended:
    return Ended(Task("net", directory.path), ending, code, 2.5)


def test_the_result_that_a_worker_left_is_taken_as_it_is(directory):
    written = describe_result(SPEC, None, time.time(), num_nodes=7)
    write_result(directory, written)
    assert collect_result(SPEC, end(directory, Ending.exited, 0)) == written


@pytest.mark.parametrize(
    ("ending", "code", "kind", "cause"),
    [
        (Ending.timed_out, 30, FailureKind.timeout, "no result after 30 s; the worker was ended"),
        (Ending.signalled, 11, FailureKind.crashed, "the worker died of SIGSEGV"),
        (Ending.signalled, 6, FailureKind.crashed, "the worker died of SIGABRT"),
        (Ending.signalled, 7, FailureKind.crashed, "the worker died of SIGBUS"),
        (Ending.signalled, 8, FailureKind.crashed, "the worker died of SIGFPE"),
        (Ending.signalled, 4, FailureKind.crashed, "the worker died of SIGILL"),
        (Ending.signalled, 9, FailureKind.killed, "the worker died of SIGKILL"),
        (Ending.signalled, 15, FailureKind.killed, "the worker died of SIGTERM"),
        (Ending.signalled, 33, FailureKind.killed, "the worker died of signal 33"),
        (Ending.exited, 0, FailureKind.exited_early, "the worker ended with exit status 0 and no result"),
        (Ending.exited, 3, FailureKind.exited_early, "the worker ended with exit status 3 and no result"),
        (Ending.exited, 74, FailureKind.storage_error, "the worker could not write its result"),
    ],
)
def test_a_worker_without_a_result_is_told_by_its_ending(directory, ending, code, kind, cause):
    result = collect_result(SPEC, end(directory, ending, code))
    assert result.status is Status.failed
    assert (result.failure.kind, result.failure.cause, result.failure.hint) == (kind, cause, HINTS[kind])
    assert result.failure.step is None
    assert 2.5 <= result.duration_s < 10
    assert directory.read_result() == result
    assert cause in directory.report.read_text()
    assert cause in (directory.repro / "repro.py").read_text()


@pytest.mark.parametrize("ending", [Ending.timed_out, Ending.signalled])
def test_the_result_of_a_worker_that_did_not_end_well_does_not_count(directory, ending):
    write_result(directory, describe_result(SPEC, None, time.time()))
    result = collect_result(SPEC, end(directory, ending, 9))
    assert result.status is Status.failed
    assert directory.read_result().status is Status.failed


def test_the_step_at_which_a_worker_died_is_kept_and_its_mark_removed(directory):
    directory.current_step.write_text("parity")
    result = collect_result(SPEC, end(directory, Ending.signalled, 11))
    assert result.failure.step is Step.parity
    assert str(result.failure) == "parity: crashed: the worker died of SIGSEGV"
    assert not directory.current_step.exists()


@pytest.mark.parametrize("step", ["", "no step", "\udcff"])
def test_a_mark_that_names_no_step_is_no_step(directory, step):
    directory.current_step.write_bytes(os.fsencode(step))
    assert collect_result(SPEC, end(directory, Ending.signalled, 11)).failure.step is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b'{"schema_version": 99}', b'{"schema_version": 1}'])
def test_a_result_that_cannot_be_read_is_corrupt_and_replaced(directory, data):
    directory.result.write_bytes(data)
    result = collect_result(SPEC, end(directory, Ending.exited, 0))
    assert result.failure.kind is FailureKind.corrupt_output
    assert "result.json" in result.failure.cause or "ExportResult" in result.failure.cause
    assert directory.read_result() == result


def test_a_result_cut_short_is_corrupt(directory):
    write_result(directory, describe_result(SPEC, None, time.time()))
    directory.result.write_bytes(directory.result.read_bytes()[:-40])
    assert collect_result(SPEC, end(directory, Ending.exited, 0)).failure.kind is FailureKind.corrupt_output


def test_a_failure_in_the_worker_s_place_replaces_its_result(directory):
    write_result(directory, describe_result(SPEC, None, time.time()))
    failed = fail_result(SPEC, directory, FailureKind.corrupt_output, "model.onnx: damaged", 1.0)
    assert directory.read_result() == failed
    assert (failed.failure.kind, failed.failure.cause) == (FailureKind.corrupt_output, "model.onnx: damaged")


def test_a_full_disk_is_a_storage_error_also_where_the_story_cannot_be_written(directory):
    write_json(directory.spec, SPEC)
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, str(directory.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == "storage_error\n"


def test_a_worker_that_died_in_a_rescue_does_not_hide_what_failed_first(directory):
    first = make_failure(Step.parity, FailureKind.parity_failed, "output 'y' is off")
    write_json(directory.first_failure, first)
    directory.current_step.write_text("capture")
    result = collect_result(SPEC, end(directory, Ending.timed_out, 60))
    failure = result.failure
    assert (failure.step, failure.kind, failure.cause) == (first.step, first.kind, first.cause)
    assert failure.fingerprint == first.fingerprint
    assert failure.hint.startswith(first.hint)
    assert "ended with timeout: no result after 60 s" in failure.hint
    assert not directory.first_failure.exists()


def test_a_first_failure_that_cannot_be_read_is_none(directory):
    directory.first_failure.write_text("{")
    assert collect_result(SPEC, end(directory, Ending.timed_out, 60)).failure.kind is FailureKind.timeout


def test_what_a_dead_worker_left_half_done_is_removed_and_its_log_is_kept(directory):
    # As large as the model each, and MLflow would log them.
    halves = (directory.scratch.model, directory.temporary / "model.onnx", directory.path / ".dynamo-x1" / "model.onnx")
    for path in halves:
        path.parent.mkdir()
        path.touch()
    directory.current_step.write_text("capture")
    directory.log.touch()
    result = collect_result(SPEC, end(directory, Ending.signalled, 9))
    assert result.failure.step is Step.capture
    assert not any(path.parent.exists() for path in halves)
    assert not directory.current_step.exists()
    assert directory.log.exists()
