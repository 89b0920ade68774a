"""The same failure has the same fingerprint, whatever the run; another failure has another."""

import os
import subprocess
import sys
from pathlib import Path

import faulty_models  # noqa: F401  (tells where it lies)
import pytest

from exporter.errors import FailureKind
from exporter.failure_fingerprint import normalize_message, take_failure_fingerprint
from exporter.failures import make_failure
from exporter.plain_data import from_plain, to_plain
from exporter.result import Failure, Step

ROOT = Path(__file__).parents[2]

SAME = [
    ("no file /home/ann/models/net.py", "no file /srv/build-17/x/net.py"),
    ("<Linear at 0x7f31a0>", "<Linear at 0x55d9ffee10>"),
    ("shape [2, 3, 4] is invalid", "shape [16, 5] is invalid"),
    ("torch.Size([s77, 8])", "torch.Size([4, 8])"),
    ("max_abs_diff 1.25e-05 in case n=4", "max_abs_diff 100 in case n=16"),
    ("node add_3 of 17", "node add_12 of 9"),
    ("\x1b[31mred\x1b[0m  text", "red text"),
    ("run 5f2c9a7be1d4 ended", "run 00ff12ab34cd ended"),
    ("x" * 200 + " advice", "x" * 200 + " other advice"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_varies_between_runs_does_not_count(one, other):
    first, second = (take_failure_fingerprint(FailureKind.capture_error, text) for text in (one, other))
    assert first == second


DIFFERENT = [
    (FailureKind.capture_error, "no file", ()),
    (FailureKind.build_error, "no file", ()),
    (FailureKind.capture_error, "no such file", ()),
    (FailureKind.capture_error, "no file", ("aten.sort.stable",)),
    (FailureKind.capture_error, "no file", ("aten.sort.stable", "aten.median.dim")),
    (FailureKind.capture_error, "no input/output", ()),
    (FailureKind.capture_error, "no input/target", ()),
]


def test_kind_message_and_operators_count():
    assert len({take_failure_fingerprint(*failure) for failure in DIFFERENT}) == len(DIFFERENT)


def test_the_order_of_the_operators_and_the_words_about_them_do_not_count():
    assert take_failure_fingerprint(FailureKind.unsupported_op, "a and b", ["a", "b"]) == take_failure_fingerprint(
        FailureKind.unsupported_op, "b and a", ["b", "a"]
    )


def test_a_message_is_readable_once_normalized():
    text = "Cannot view a tensor with shape torch.Size([s77, 6, 4]) at /a/b/c.py:12"
    assert normalize_message(text) == "Cannot view a tensor with shape torch.Size([#]) at <path>:#"


def test_the_cut_of_the_shown_cause_does_not_count():
    long = "/very" + "/long" * 100
    failures = [
        make_failure(Step.build, FailureKind.build_error, f"in {path}: no such layer") for path in (long, "/a/b")
    ]
    assert failures[0].cause != failures[1].cause
    assert failures[0].fingerprint == failures[1].fingerprint


def test_a_failure_keeps_its_fingerprint_in_a_file():
    failure = make_failure(Step.capture, FailureKind.unsupported_op, "no function", ops=["aten.sort.stable"])
    assert len(failure.fingerprint) == 12
    assert from_plain(Failure, to_plain(failure)) == failure


PROGRAM = """
import logging, sys, tempfile
sys.path.insert(0, {support!r})
logging.disable(logging.CRITICAL)
import faulty_models
from exporter.conductor import run_export
for model in (faulty_models.BranchesOnValue(), faulty_models.FixesSize(), faulty_models.TakesManyOperators()):
    with tempfile.TemporaryDirectory() as path:
        failure = run_export(faulty_models.make_spec(), path, model, threads=1).failure
        print("fingerprint", failure.kind, failure.fingerprint)
"""


def test_real_failures_have_the_same_fingerprint_in_two_processes():
    program = PROGRAM.format(support=sys.modules["faulty_models"].__file__.rpartition("/")[0])
    seen = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        seen.append([line for line in done.stdout.splitlines() if line.startswith("fingerprint")])
    assert seen[0] == seen[1]
    assert len({line.split()[-1] for line in seen[0]}) == 3
