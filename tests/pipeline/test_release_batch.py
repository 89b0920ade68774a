"""A batch that ends in a release: its exit code, and what is left for the next one."""

from pathlib import Path

import pytest
from stub_executor import StubExecutor, make_jobs

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, FailureKind
from exporter.failures import make_failure
from exporter.result import Step
from pipeline.batch import run_batch
from pipeline.executor import Task
from pipeline.source_code import forget_sources
from registry_sync.release_manifest import Manifest, Verdict, find_releases
from registry_sync.release_options import KnownFailure, ReleaseBudgets, ReleaseOptions

FAILURE = make_failure(Step.capture, FailureKind.unsupported_op, "no ONNX function for aten.mystery")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    forget_sources()
    return tmp_path


class Failing(StubExecutor):
    """Exports with `fail` in their names fail."""

    def _work(self, task: Task) -> int:
        if "fail" not in task.id:
            return super()._work(task)
        directory = ExportDirectory(task.directory)
        write_result(directory, describe_result(directory.read_spec(), FAILURE, 1_767_225_600.0))
        return 0


def run(*ids: str, opset_version: int = 18, **options: object) -> ExitCode:
    release = ReleaseOptions(**{"name": "zoo"} | options)
    return run_batch(make_jobs(*ids, opset_version=opset_version, release=release), ["+release=zoo"], Failing())


def last() -> Manifest:
    return find_releases(Path("releases"))[-1][1]


def test_a_release_is_written_and_the_next_run_has_nothing_new(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("a", "b", version="1") is ExitCode.OK
    assert "release: zoo-1, releases/zoo-1/changes.html" in capfd.readouterr().out
    assert run("a", "b") is ExitCode.OK
    assert "release: nothing new since zoo-1" in capfd.readouterr().out
    assert [model.id for model in last().models] == ["a", "b"]


def test_a_model_over_budget_fails_the_command_though_every_export_passed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("a", version="1") is ExitCode.OK
    assert run("a", opset_version=19, version="2") is ExitCode.EXPORT_FAILED
    assert "a: over budget: opset 18 -> 19: may not change" in capfd.readouterr().out
    assert last().models[0].verdict is Verdict.over_budget
    assert run("a", opset_version=19) is ExitCode.EXPORT_FAILED
    free = ReleaseBudgets(may_change_opset=True)
    assert run("a", opset_version=19, version="3", budgets=free) is ExitCode.OK


def test_a_failure_fails_the_command_unless_it_is_declared_and_its_day_is_not_over() -> None:
    assert run("a", "b-fail", version="1") is ExitCode.EXPORT_FAILED
    known = KnownFailure("b-fail", FAILURE.fingerprint, "https://example.org/1", "2999-01-01")
    assert run("a", "b-fail", version="2", known_failures=[known]) is ExitCode.OK
    assert last().passed
    known.expires = "2026-01-01"
    assert run("a", "b-fail", version="3", known_failures=[known]) is ExitCode.EXPORT_FAILED


def test_unsound_options_stop_the_batch_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"release\.version: 'a/b'"):
        run("a", version="a/b")
    with pytest.raises(ConfigError, match=r"release\.accept: no export of this batch is called 'mlp_a'; did you mean"):
        run("mlp-a", "mlp-b", accept=["mlp_a"])
    assert not Path("runs").exists()


def test_a_batch_that_is_no_release_writes_none() -> None:
    assert run_batch(make_jobs("a"), [], StubExecutor()) is ExitCode.OK
    assert not Path("releases").exists()


def test_the_page_of_a_release_is_compared_with_the_release_before_it_and_not_with_the_last_batch() -> None:
    assert run("a", "b", version="1") is ExitCode.OK
    first = set(Path("runs").glob("*/index.html"))
    # A batch without a release: the version is taken.
    assert run("a", "b", opset_version=19, version="1") is ExitCode.STORAGE
    assert run("a", "b", opset_version=20, version="2") is ExitCode.EXPORT_FAILED
    later = [page.read_text() for page in set(Path("runs").glob("*/index.html")) - first]
    assert ['since <bdi class="name">release zoo-1</bdi>' in page for page in later] == [True, True]
