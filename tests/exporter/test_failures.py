"""An exception's kind, its root cause in one line, and a next move."""

import errno
import re
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.errors import FailureKind, StepError
from exporter.failures import HINTS, describe_failure, is_storage_error, one_line, tell_error
from exporter.result import Rung, Step


def chained(*errors):
    """The first error, raised from the second, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def named(name, message=""):
    """An exception of a class that is private to torch, known by its name alone."""
    return type(name, (RuntimeError,), {})(message)


DOCUMENTED = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def test_every_kind_is_documented_and_no_other():
    text = (Path(__file__).parents[2] / "docs/failures.md").read_text(encoding="utf-8")
    kinds = DOCUMENTED.findall(text)
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == set(FailureKind)
    assert set(re.findall(r"^\| rung `(\w+)`", text, re.MULTILINE)) == set(Rung)


def test_every_kind_has_a_hint():
    assert set(HINTS) == set(FailureKind)
    assert all(HINTS.values())


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step.build, FailureKind.build_error),
        (Step.capture, FailureKind.capture_error),
        (Step.optimize, FailureKind.optimize_error),
        (Step.save, FailureKind.save_error),
        (Step.check, FailureKind.invalid_onnx),
        (Step.parity, FailureKind.runtime_error),
        (Step.measure, FailureKind.measure_error),
    ],
)
def test_an_unknown_error_is_of_its_steps_kind(step, kind):
    failure = describe_failure(step, ValueError("what"))
    assert (failure.step, failure.kind, failure.cause, failure.hint) == (step, kind, "ValueError: what", HINTS[kind])


def test_every_step_has_a_kind_of_its_own():
    assert len({describe_failure(step, ValueError()).kind for step in Step}) == len(Step)


def test_the_cause_is_the_root_of_the_chain():
    error = chained(RuntimeError("outer"), RuntimeError("middle"), KeyError("root"))
    assert describe_failure(Step.build, error).cause == "KeyError: 'root'"


def test_an_error_without_words_is_told_by_its_name():
    assert describe_failure(Step.build, ValueError()).cause == "ValueError"


def test_a_chain_that_bites_its_tail_ends():
    first, second = RuntimeError("first"), RuntimeError("second")
    chained(first, second, first)
    assert describe_failure(Step.build, first).cause == "RuntimeError: second"


def test_a_step_that_knows_its_failure_is_taken_at_its_word():
    error = StepError(FailureKind.dim_narrowed, "dim 'n'\nis narrow", "widen it")
    failure = describe_failure(Step.check, error)
    assert (failure.kind, failure.cause, failure.hint) == (FailureKind.dim_narrowed, "dim 'n' is narrow", "widen it")
    error.hint = ""
    assert describe_failure(Step.check, error).hint == HINTS[FailureKind.dim_narrowed]


@pytest.mark.parametrize("step", list(Step))
def test_a_full_disk_is_a_storage_error_at_every_step(step):
    error = chained(RuntimeError("cannot save"), OSError(errno.ENOSPC, "No space left on device"))
    assert describe_failure(step, error).kind is FailureKind.storage_error


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
@pytest.mark.parametrize("step", list(Step))
def test_no_memory_is_told_apart_at_every_step(step, error):
    assert describe_failure(step, chained(RuntimeError("outer"), error)).kind is FailureKind.out_of_memory


@pytest.mark.parametrize(
    ("error", "storage"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EROFS, "read-only"), True),
        (PermissionError(errno.EACCES, "denied"), True),
        (FileNotFoundError(errno.ENOENT, "missing"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (OSError("no number"), False),
        (ValueError(errno.ENOSPC), False),
    ],
)
def test_the_disk_is_at_fault_only_where_it_is(error, storage):
    assert is_storage_error(error) is storage


STATIC = "Received user-specified dim hint Dim.DYNAMIC, but tracing inferred a static shape of 4"


@pytest.mark.parametrize(
    ("chain", "kind"),
    [
        ([named("TorchExportError"), ValueError(STATIC)], FailureKind.dim_specialized),
        ([named("TorchExportError"), ValueError("data-dependent")], FailureKind.capture_error),
        ([named("TorchExportError"), named("GuardOnDataDependentSymNode")], FailureKind.data_dependent),
        ([named("TorchExportError"), ValueError("Constraints violated (n, m)!")], FailureKind.dim_conflict),
        ([named("VersionConverterError")], FailureKind.opset_mismatch),
        ([named("ConversionError", "step 3/3"), named("DispatchError")], FailureKind.unsupported_op),
        ([named("ConversionError", "step 3/3"), named("GraphConstructionError"), ValueError()], "translation_error"),
        ([named("ConversionError", "step 2/3"), ValueError()], FailureKind.decomposition_error),
        ([named("ConversionError", "step 3/3"), ValueError()], FailureKind.translation_error),
        ([ValueError("anything")], FailureKind.capture_error),
    ],
)
def test_torchs_own_errors_are_told_apart_in_capture(chain, kind):
    assert describe_failure(Step.capture, chained(*chain)).kind == kind


def test_torchs_words_mean_nothing_outside_capture():
    assert describe_failure(Step.build, named("DispatchError")).kind is FailureKind.build_error


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n  b\t c\r\n", "a b c"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("x" * 400, "x" * 400),
        ("x" * 401, "x" * 397 + "..."),
        ("", ""),
    ],
)
def test_a_message_becomes_one_readable_line(text, line):
    assert one_line(text) == line


class SpeechlessError(RuntimeError):
    def __str__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("step", Step)
def test_an_exception_that_cannot_say_its_message_is_told_by_its_type(step):
    failure = describe_failure(step, SpeechlessError())
    assert failure.cause == "SpeechlessError"
    assert failure.kind is describe_failure(step, RuntimeError("words")).kind
    assert tell_error(SpeechlessError()) == "SpeechlessError"
    assert tell_error(GeneratorExit()) == "GeneratorExit"
    assert tell_error(SystemExit("words")) == "SystemExit: words"


def test_what_utf_8_or_a_terminal_cannot_take_is_escaped():
    told = one_line("a\x00b\x07c\x1b]0;title\x9cd\udcffe\n \x1b[31mred\x1b[0m \u00e9")
    assert told == r"a\x00b\x07c\x1b]0;title\x9cd\udcffe red " + "\u00e9"
    told.encode()
