"""A process of its own for each measurement: what it tells, how it can end, and that it is never left behind."""

import subprocess
import sys
import time

import faulty_models
import psutil
import pytest

from exporter import ExportDirectory
from exporter.files import write_json
from exporter.probe import Way, run_probe

MIB = 2**20


def probe(tmp_path, target, way, time_limit_s=120.0):
    write_json(ExportDirectory(tmp_path).spec, faulty_models.make_spec(f"faulty_models.{target}"))
    folder = tmp_path / "probe"
    folder.mkdir()
    # Fixtures of other tests, such as servers, may be at work beside us.
    before = psutil.Process().children()
    found = run_probe(tmp_path, way, folder, threads=1, time_limit_s=time_limit_s)
    assert psutil.Process().children() == before
    return found


def wait_until(holds, limit_s=60.0):
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_peak_is_above_the_imports_and_on_the_curve(tmp_path):
    found = probe(tmp_path, "Swells", Way.eager)
    assert found.record.reason == ""
    assert 60 * MIB < found.record.peak_bytes < 120 * MIB
    assert 0 < found.record.duration_s < 60
    times = [sample.at_s for sample in found.samples]
    assert times == sorted(times)
    assert times[0] < found.record.started_at_s < times[-1]
    # The first is of an interpreter that has not imported torch yet.
    assert found.samples[0].usage.rss_bytes < found.record.baseline_rss_bytes


@pytest.mark.parametrize("way", [Way.dynamo, Way.torchscript])
def test_an_export_writes_its_file(tmp_path, way):
    found = probe(tmp_path, "Perceptron", way)
    assert found.record.reason == ""
    assert found.record.peak_bytes > 0
    assert len(list((tmp_path / "probe").glob("*.onnx"))) == 1


@pytest.mark.parametrize(
    ("target", "way", "reason"),
    [
        ("RefusesTorchScript", Way.torchscript, "ValueError: no tracing here"),
        ("Exits", Way.eager, "the process ended with exit status 3"),
        ("Percepton", Way.eager, "StepError: 'faulty_models.Percepton': no 'Percepton' in faulty_models"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path, target, way, reason):
    found = probe(tmp_path, target, way)
    assert found.record.reason == reason
    assert found.record.peak_bytes == 0


def test_a_process_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = probe(tmp_path, "Sleeps", Way.eager, time_limit_s=0.5)
    assert found.record.reason == "not done after 0.5 s"


PARENT = """
from pathlib import Path
from exporter.probe import Way, run_probe
run_probe(Path("."), Way.eager, Path("probe"), threads=1, time_limit_s=60)
"""


def test_the_process_ends_with_the_one_that_started_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    write_json(ExportDirectory(tmp_path).spec, faulty_models.make_spec("faulty_models.Sleeps"))
    (tmp_path / "probe").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path)
    wait_until((tmp_path / "sleeper").exists)
    child = int((tmp_path / "sleeper").read_text())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(child), 30.0)
