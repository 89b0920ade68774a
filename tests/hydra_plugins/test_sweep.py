import sys
import textwrap
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

CONFIG = """
    defaults:
      - _self_
      - override hydra/launcher: modelpress
      - override hydra/sweeper: modelpress
      - override hydra/job_logging: none
      - override hydra/hydra_logging: none
    size: 1
    colour: red
    hydra:
      output_subdir: null
      run: {dir: .}
      sweep: {dir: ., subdir: .}
"""


class Application:
    """A Hydra application that knows nothing of exports; it keeps what it is called with."""

    def __init__(self, folder):
        self.folder = folder
        self.calls: list[Any] = []

    def write(self, name: str, text: str) -> None:
        path = self.folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(self, monkeypatch, *arguments: str) -> list[Any]:
        """What the task was called with; the jobs of a sweep are not composed yet."""
        monkeypatch.setattr(sys, "argv", ["app", *arguments])
        entry = hydra.main(version_base="1.3", config_path=str(self.folder / "conf"), config_name="config")
        entry(self.calls.append)()
        return self.calls

    def jobs(self, monkeypatch, *arguments: str) -> list[dict[str, Any]]:
        """The jobs of the one call, each as plain data without the node that Hydra adds."""
        (jobs,) = self.run(monkeypatch, *arguments)
        return [{key: value for key, value in OmegaConf.to_container(job).items() if key != "hydra"} for job in jobs]


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Errors are raised, not printed.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    application = Application(tmp_path)
    application.write("config.yaml", CONFIG)
    application.write("shape/round.yaml", "radius: 1")
    application.write("shape/square.yaml", "side: 2")
    yield application
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def test_a_sweep_of_two_by_two_is_one_call_with_four_jobs(app, monkeypatch):
    jobs = app.jobs(monkeypatch, "-m", "size=1,2", "colour=red,blue")
    assert len(app.calls) == 1
    assert sorted((job["size"], job["colour"]) for job in jobs) == [(1, "blue"), (1, "red"), (2, "blue"), (2, "red")]


def test_a_sweep_over_a_config_group_composes_each_option(app, monkeypatch):
    jobs = app.jobs(monkeypatch, "-m", "+shape=round,square")
    assert [job["shape"] for job in jobs] == [{"radius": 1}, {"side": 2}]


def test_a_multirun_without_a_sweep_is_one_call_with_one_job(app, monkeypatch):
    assert app.jobs(monkeypatch, "-m", "size=3") == [{"size": 3, "colour": "red"}]


def test_each_job_knows_its_own_overrides(app, monkeypatch):
    jobs = list(*app.run(monkeypatch, "-m", "size=1,2", "colour=blue"))
    assert all(isinstance(job, DictConfig) for job in jobs)
    assert [sorted(job.hydra.overrides.task) for job in jobs] == [["colour=blue", "size=1"], ["colour=blue", "size=2"]]


def test_sweeps_in_the_config_and_on_the_command_line_multiply(app, monkeypatch):
    text = textwrap.dedent(CONFIG) + "  mode: MULTIRUN\n  sweeper:\n    params:\n      size: 1,2,3\n"
    app.write("config.yaml", text)
    jobs = app.jobs(monkeypatch, "colour=red,blue")
    assert len(jobs) == 6
    assert {(job["size"], job["colour"]) for job in jobs} == {(i, c) for i in (1, 2, 3) for c in ("red", "blue")}


def test_a_range_and_a_glob_are_swept(app, monkeypatch):
    jobs = app.jobs(monkeypatch, "-m", "size=range(0,3)", "+shape=glob(*)")
    assert sorted((job["size"], *job["shape"]) for job in jobs) == [
        (size, key) for size in range(3) for key in ("radius", "side")
    ]


def test_a_large_sweep_is_one_call(app, monkeypatch):
    jobs = app.jobs(monkeypatch, "-m", "size=range(0,60)")
    assert [job["size"] for job in jobs] == list(range(60))
    assert len(app.calls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+shape=round,oval,square"], "oval"),
        (["size=1,2", "no_such_key=1,2"], "no_such_key"),
    ],
)
def test_a_broken_job_is_raised_to_who_takes_it(app, monkeypatch, arguments, message):
    (jobs,) = app.run(monkeypatch, "-m", *arguments)
    with pytest.raises(HydraException, match=message):
        list(jobs)


def test_a_job_is_composed_when_it_is_asked_for(app, monkeypatch):
    (jobs,) = app.run(monkeypatch, "-m", "+shape=round,oval")
    assert next(jobs).shape == {"radius": 1}
    app.write("shape/oval.yaml", "radii: [1, 2]")
    assert next(jobs).shape == {"radii": [1, 2]}
    assert next(jobs, None) is None


def test_a_sweep_that_cannot_be_composed_at_all_does_not_reach_the_task(app, monkeypatch):
    with pytest.raises(HydraException, match="no_such_key"):
        app.run(monkeypatch, "-m", "size=1,2", "no_such_key=1")
    assert app.calls == []


def test_what_the_task_raises_comes_to_the_caller(app, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app", "-m", "size=1,2"])

    def fail(_jobs):
        raise LookupError("from the task")

    entry = hydra.main(version_base="1.3", config_path=str(app.folder / "conf"), config_name="config")
    with pytest.raises(LookupError, match="from the task"):
        entry(fail)()


def test_a_sweep_writes_no_files(app, monkeypatch):
    before = sorted(app.folder.rglob("*"))
    list(*app.run(monkeypatch, "-m", "size=1,2"))
    assert sorted(app.folder.rglob("*")) == before


def test_without_multirun_the_task_gets_one_config(app, monkeypatch):
    (config,) = app.run(monkeypatch, "size=5")
    assert config == {"size": 5, "colour": "red"}
