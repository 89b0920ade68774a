import json
from pathlib import Path

import pytest
from batch_data import make_spec

from pipeline.expectation import Expectation, expect, find_recent_runs

MIB = 1 << 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_result(path, peak_mib, duration_s=3.0):
    path.parent.mkdir(parents=True)
    steps = [{"peak_rss_bytes": peak} for peak in (450 * MIB, None if peak_mib is None else peak_mib * MIB)]
    path.write_text(json.dumps({"steps": steps, "baseline_rss_bytes": 400 * MIB, "duration_s": duration_s}))


def expect_net():
    return expect(make_spec("net"), Path("exports"), find_recent_runs(Path("runs")))


def test_the_last_result_of_an_export_says_what_it_needs():
    write_result(Path("exports/net/result.json"), 1400)
    write_result(Path("runs/20260101-000000-aaaa/results/net.json"), 3000)
    # Its peak above what all workers share, and what a fork has to itself of that.
    assert expect_net() == Expectation((1000 + 128) * MIB, 3.0)


def test_the_last_run_says_it_of_an_export_that_was_never_published():
    write_result(Path("runs/20260101-000000-aaaa/results/net.json"), 3000)
    write_result(Path("runs/20260201-000000-aaaa/results/net.json"), 2400, 7.0)
    write_result(Path("runs/20260301-000000-aaaa/results/other.json"), 900)
    assert expect_net() == Expectation((2000 + 128) * MIB, 7.0)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"steps": [], "duration_s": 1}', '{"steps": null}'])
def test_a_result_that_says_nothing_is_passed_over(text):
    path = Path("exports/net/result.json")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    write_result(Path("runs/20260101-000000-aaaa/results/net.json"), 2400)
    assert expect_net() == Expectation((2000 + 128) * MIB, 3.0)


def test_a_new_export_is_guessed_by_its_checkpoint(folder):
    assert expect_net() == Expectation(1 << 30, None)
    weights = folder / "net.safetensors"
    with weights.open("wb") as file:
        file.truncate(5 << 30)
    spec = make_spec("net")
    spec.model.weights = str(weights)
    assert expect(spec, Path("exports"), []) == Expectation((1 << 30) + 3 * (5 << 30), None)
    spec.model.weights = "missing.safetensors"
    assert expect(spec, Path("exports"), []) == Expectation(1 << 30, None)
