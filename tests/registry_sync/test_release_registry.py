"""Releases in a real MLflow store and a real DVC repository: registered, promoted, rolled back."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from fault_proxy import Fault, Request, run_proxy
from mlflow import MlflowClient
from mlflow_server import Server
from project import make_environment
from release_batch import finish_batch, make_options, publish

from exporter import publication
from exporter.directory import ExportDirectory
from exporter.errors import ExitCode, SyncError
from exporter.files import hash_file
from exporter.lock import lock_output
from exporter.result import ExportResult
from registry_sync import release_workspace
from registry_sync.__main__ import main
from registry_sync.bounded import Budget
from registry_sync.metrics import write_metrics
from registry_sync.options import TrackingOptions
from registry_sync.release import make_release, register_pending
from registry_sync.release_manifest import Manifest, ReleaseDirectory, find_releases
from registry_sync.tracker import SyncReport, Tracker

RELEASES = Path("releases")
STAGES = {
    "stages": {
        "export": {
            "matrix": {"model": ["mlp", "bert"]},
            "cmd": "false",
            "deps": ["made_from/${item.model}"],
            "outs": [{"exports/${item.model}": {"persist": True}}],
            "metrics": [{"metrics/${item.model}.json": {"cache": False, "persist": True}}],
        }
    }
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables, which take longer to make than all else here."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(here: Path, template: Path) -> MlflowClient:
    shutil.copy(template, "mlflow.db")
    return MlflowClient(tracking_uri=f"sqlite:///{here}/mlflow.db")


@pytest.fixture
def repository(here: Path) -> Path:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, env=make_environment({}))
    Path("dvc.yaml").write_text(yaml.safe_dump(STAGES))
    return here


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=make_environment({})).stdout


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=make_environment({})).stdout


def release(version: str, *new: str, uri: str | None = None, **options: object) -> SyncReport:
    """A batch in which these exports were due, out of mlp and bert; their bytes are as long for every version."""
    Path("made_from").mkdir(exist_ok=True)
    for name in new:
        Path("made_from", name).write_text(version)
        directory = publish(name, f"{name} {version}".ljust(100).encode(), latency_s=0.01 + int(version) / 1e5)
        write_metrics("metrics", directory.read_result())
    rest = tuple(name for name in ("mlp", "bert") if name not in new)
    tracking = TrackingOptions(uri=uri)
    run, record = finish_batch(*new, up_to_date=rest, tracking=tracking)
    return Tracker(tracking, make_options(version=version, **options)).finish(run, record)


def aliases(store: MlflowClient, alias: str) -> dict[str, str | None]:
    names = ("mlp", "bert")
    # Other tests have models of their own on the server.
    found = {one.name: one.aliases.get(alias) for one in store.search_registered_models() if one.name in names}
    return {name: None if version is None else str(version) for name, version in found.items()}


def read(version: str) -> tuple[ReleaseDirectory, Manifest]:
    directory = ReleaseDirectory(RELEASES / f"zoo-{version}")
    return directory, directory.read_manifest()


def run(*arguments: str) -> ExitCode:
    return main(list(arguments))


def test_each_model_is_a_version_with_its_origin_and_a_candidate(store: MlflowClient, repository: Path) -> None:
    report = release("1", "mlp", "bert")
    assert (report.release_code, report.is_behind) == (ExitCode.OK, False)
    _, manifest = read("1")
    for model in manifest.models:
        assert model.dvc_hash.endswith(".dir")
        assert model.dvc_hash in Path("dvc.lock").read_text()
        version = store.get_model_version_by_alias(model.id, "candidate")
        assert version.tags["modelpress.release"] == "zoo"
        assert version.tags["modelpress.release_version"] == "1"
        assert version.tags["modelpress.dvc_hash"] == model.dvc_hash
        assert version.tags["modelpress.sha256.model.onnx"] == model.model_files[0].sha256
        assert version.tags["modelpress.in.zoo-1"] == "accepted"
        assert version.tags["modelpress.model_id"] == model.mlflow_model_id
        assert store.get_run(model.mlflow_run_id).info.run_name == model.id
    assert store.get_run(manifest.mlflow_run_id).info.run_name == "zoo"


def test_an_export_that_was_up_to_date_keeps_its_version(store: MlflowClient) -> None:
    release("1", "mlp", "bert")
    release("2", "mlp")
    assert aliases(store, "candidate") == {"mlp": "2", "bert": "1"}
    assert store.get_model_version("bert", "1").tags["modelpress.in.zoo-2"] == "accepted"
    assert read("2")[0].read_registration().versions == {"mlp": "2", "bert": "1"}


def test_a_model_over_budget_is_registered_and_no_candidate(store: MlflowClient) -> None:
    release("1", "mlp", "bert")
    publish("bert", b"x" * 200)
    tracking = TrackingOptions()
    batch, record = finish_batch("bert", up_to_date=("mlp",), tracking=tracking)
    report = Tracker(tracking, make_options(version="2")).finish(batch, record)
    assert report.release_code is ExitCode.EXPORT_FAILED
    assert aliases(store, "candidate") == {"mlp": "1", "bert": "1"}
    assert store.get_model_version("bert", "2").tags["modelpress.verdict"] == "over budget"


def test_a_store_that_is_away_costs_no_release_and_sync_catches_up(
    store: MlflowClient, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "away").mkdir()
    report = release("1", "mlp", "bert", uri=f"sqlite:///{here}/away")
    assert report.is_behind
    assert report.release_code is ExitCode.OK
    assert "zoo-1 is not registered: MLflow is behind" in report.lines
    assert read("1")[0].read_registration() is None
    assert run("sync", "--tracking-uri", f"sqlite:///{here}/mlflow.db") == 0
    assert "zoo-1: registered in MLflow" in capsys.readouterr().out
    assert aliases(store, "candidate") == {"mlp": "1", "bert": "1"}
    assert run("sync") == 0


def test_a_release_that_cannot_be_registered_does_not_keep_back_later_ones(
    store: MlflowClient, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "away").mkdir()
    for version in ("1", "2"):
        release(version, "mlp", "bert", uri=f"sqlite:///{here}/away")
    assert run("sync", "--tracking-uri", f"sqlite:///{here}/mlflow.db") == 6
    told = capsys.readouterr()
    # Its bytes are nowhere by now.
    assert "zoo-1: MLflow does not have the bytes of mlp" in told.err
    assert "zoo-2: registered in MLflow" in told.out
    for name in ("mlp", "bert"):
        assert "modelpress.in.zoo-2" in store.get_model_version_by_alias(name, "candidate").tags


def test_what_was_cut_off_before_it_was_registered_is_registered_by_the_next_batch(store: MlflowClient) -> None:
    release("1", "mlp", "bert")
    read("1")[0].registration.unlink()
    store.delete_registered_model_alias("mlp", "candidate")
    report = release("1")
    assert report.lines[-1] == "release: nothing new since zoo-1"
    assert aliases(store, "candidate") == {"mlp": "1", "bert": "1"}
    assert len(store.search_model_versions("name = 'mlp'")) == 1


def test_models_are_registered_in_a_database_of_any_name(template: Path, here: Path) -> None:
    (here / "elsewhere").mkdir()
    uri = f"sqlite:///{here}/elsewhere/other.db"
    shutil.copy(template, "elsewhere/other.db")
    environment = dict(os.environ)
    report = release("1", "mlp", "bert", uri=uri)
    assert not report.is_behind, report.lines
    assert aliases(MlflowClient(tracking_uri=uri), "candidate") == {"mlp": "1", "bert": "1"}
    assert not (here / "mlflow.db").exists()
    assert os.environ.get("MLFLOW_TRACKING_URI") == environment.get("MLFLOW_TRACKING_URI")


def test_the_line_for_git_comes_last_and_has_the_release(repository: Path) -> None:
    for name in ("mlp", "bert"):
        publish(name)
        Path("made_from").mkdir(exist_ok=True)
        Path("made_from", name).touch()
        Path("metrics").mkdir(exist_ok=True)
        Path("metrics", f"{name}.json").write_text("{}")
    tracking = TrackingOptions(mlflow=False)
    batch, record = finish_batch("mlp", "bert", tracking=tracking)
    report = Tracker(tracking, make_options(version="1")).finish(batch, record)
    line = report.lines[-1]
    assert line.startswith("git:    git add dvc.lock ")
    assert [one for one in report.lines if one.startswith("git:")] == [line]
    subprocess.run(["sh", "-c", line.removeprefix("git:    ").partition(" && ")[0]], check=True)
    added = subprocess.run(["git", "diff", "--cached", "--name-only"], capture_output=True, text=True, check=True)
    found = {name for name in added.stdout.splitlines() if name.startswith("releases/")}
    assert found == {str(path) for path in Path("releases/zoo-1").iterdir()}
    assert not [word for word in line.split() if word.startswith("releases/") and word != "releases/zoo-1"]


def test_sync_does_not_take_candidates_back_to_an_older_release(store: MlflowClient) -> None:
    release("1", "mlp", "bert")
    release("2", "mlp", "bert")
    read("1")[0].registration.unlink()
    assert run("sync") == 0
    assert aliases(store, "candidate") == {"mlp": "2", "bert": "2"}


def test_promote_moves_all_and_rollback_brings_the_versions_and_the_bytes_back(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release("1", "mlp", "bert")
    before = {path: hash_file(path) for path in Path("exports").rglob("*") if path.is_file()}
    git("add", ".")
    git("commit", "-qm", "Release 1")
    assert run("promote", "zoo") == 0
    assert capsys.readouterr().out.endswith(
        "git:    git add releases/zoo.promotions.json && git commit -m 'Promote zoo-1 to champion'\n"
    )
    release("2", "mlp", "bert")
    assert run("promote", "zoo", "--to", "champion", "--release", "2") == 0
    assert aliases(store, "champion") == {"mlp": "2", "bert": "2"}
    assert "zoo-2 is champion: 2 models, 2 moved" in capsys.readouterr().out
    assert run("promote", "zoo") == 0
    assert capsys.readouterr().out.startswith("zoo-2 is champion already\n")
    assert run("rollback", "zoo") == 0
    told = capsys.readouterr().out
    assert "exports/mlp: as in zoo-1" in told
    assert "git commit -m 'Roll back champion of zoo'" in told
    assert aliases(store, "champion") == {"mlp": "1", "bert": "1"}
    assert {path: hash_file(path) for path in Path("exports").rglob("*") if path.is_file()} == before
    # What the newer ones were made from is still there, and DVC says so, until git takes that back too.
    assert git("status", "--porcelain", "--", "dvc.lock", "metrics", "metrics.json") == ""
    assert re.findall(r"modified: +(\S+)", dvc("status")) == ["made_from/mlp", "made_from/bert"]
    git("checkout", "made_from")
    assert "up to date" in dvc("status")
    assert run("verify") == 0
    assert "releases/zoo-2: ok, 2 in DVC's cache" in capsys.readouterr().out
    # The first promotion is undone too: there was no champion before it.
    assert run("rollback", "zoo") == 0
    assert aliases(store, "champion") == {"mlp": None, "bert": None}
    assert run("rollback", "zoo") == 2
    assert "there is no promotion to champion to go back from" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_exports_that_no_stage_makes_are_rolled_back_too(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dvc.yaml").unlink()
    report = release("1", "mlp", "bert")
    assert not report.is_behind, report.lines
    assert all(model.dvc_hash.endswith(".dir") for model in read("1")[1].models)
    run("promote", "zoo")
    before = {path: path.read_bytes() for path in Path("exports").glob("*.dvc")}
    assert len(before) == 2
    release("2", "mlp", "bert")
    run("promote", "zoo")
    assert run("rollback", "zoo") == 0
    assert "exports/mlp: as in zoo-1" in capsys.readouterr().out
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 1")
    assert {path: path.read_bytes() for path in before} == before
    assert "up to date" in dvc("status")


def test_bytes_that_the_cache_lacks_come_from_the_remote(
    store: MlflowClient, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dvc("remote", "add", "-d", "here", str(tmp_path_factory.mktemp("remote")))
    release("1", "mlp", "bert")
    run("promote", "zoo")
    dvc("push", "-q")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    dvc("push", "-q")
    shutil.rmtree(".dvc/cache")
    assert run("rollback", "zoo") == 0
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 1")


@pytest.mark.parametrize("command", [["rollback", "zoo"], ["checkout", "zoo", "--release", "1"]])
def test_an_export_that_dvc_does_not_have_is_not_replaced(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    # The batch published it, and was killed before it came to DVC.
    publish("mlp", b"three days of work".ljust(100))
    assert run(*command) == 6
    err = capsys.readouterr().err
    assert "exports/mlp: DVC does not have what is there now" in err
    assert "python -m registry_sync sync first" in err
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"three days")
    assert ExportDirectory(Path("exports/bert")).model.read_bytes().startswith(b"bert 2")
    assert aliases(store, "champion") == {"mlp": "2", "bert": "2"}
    assert run("sync") == 0
    kept = hash_file(ExportDirectory(Path("exports/mlp")).model)
    assert run(*command) == 0
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 1")
    assert kept in {hash_file(path) for path in Path(".dvc/cache").rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["a folder", "a file", "a link"])
def test_somebody_s_own_files_are_not_replaced(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    place = Path("exports/mlp")
    shutil.rmtree(place)
    if kind == "a file":
        place.write_text("my notes")
    else:
        own = place if kind == "a folder" else Path("elsewhere")
        own.mkdir()
        (own / "notes").write_text("my notes")
        if kind == "a link":
            place.symlink_to(own.resolve())
    for command in (["rollback", "zoo"], ["checkout", "zoo", "--release", "1"]):
        assert run(*command) == 5
        assert "exports/mlp: " in (err := capsys.readouterr().err)
        assert "nothing was changed" in err
        assert (place if kind == "a file" else place / "notes").read_text() == "my notes"
        assert place.is_symlink() == (kind == "a link")
    assert aliases(store, "champion") == {"mlp": "2", "bert": "2"}
    assert ExportDirectory(Path("exports/bert")).model.read_bytes().startswith(b"bert 2")


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_bytes_that_are_not_to_be_had_stop_a_rollback_before_anything_moves(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    old = ExportDirectory(Path("exports/bert")).model.read_bytes()
    release("2", "mlp", "bert")
    run("promote", "zoo")
    (place,) = [path for path in Path(".dvc/cache").rglob("*") if path.is_file() and path.read_bytes() == old]
    place.chmod(0o644)
    place.unlink() if damage == "gone" else place.write_bytes(old[::-1])
    assert run("rollback", "zoo") == (6 if damage == "gone" else 7)
    err = capsys.readouterr().err
    assert ("neither DVC's cache nor its remote has" if damage == "gone" else "is not what was released") in err
    assert aliases(store, "champion") == {"mlp": "2", "bert": "2"}
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 2")
    if damage == "changed":
        assert run("verify") == 7
        assert "bert: DVC's cache has other bytes: model.onnx" in capsys.readouterr().err
    assert run("rollback", "zoo", "--registry-only") == 0
    assert aliases(store, "champion") == {"mlp": "1", "bert": "1"}


@pytest.mark.parametrize("kind", ["a file", "the list of files"])
def test_damage_in_the_cache_is_found_while_exports_is_whole_and_can_be_mended(
    store: MlflowClient,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
) -> None:
    dvc("remote", "add", "-d", "here", str(tmp_path_factory.mktemp("remote")))
    release("1", "mlp", "bert")
    dvc("push", "-q")
    model = read("1")[1].find("mlp")
    content = ExportDirectory(Path("exports/mlp")).model.read_bytes()
    if kind == "a file":
        (place,) = [path for path in Path(".dvc/cache").rglob("*") if path.is_file() and path.read_bytes() == content]
        spoilt = content[::-1]
    else:
        (place,) = Path(".dvc/cache").rglob(f"{model.dvc_hash[2:]}")
        # Still a list, but of other names.
        spoilt = place.read_bytes().replace(b"model.onnx", b"madel.onnx")
    place.chmod(0o644)
    place.write_bytes(spoilt)
    assert run("verify") == 7
    assert "releases/zoo-1: mlp: DVC's cache has other bytes: " in capsys.readouterr().err
    shutil.rmtree("exports/mlp")
    assert run("checkout", "zoo") != 0
    err = capsys.readouterr().err
    assert str(place) in err
    assert "without" in err
    place.unlink()
    assert run("checkout", "zoo") == 0
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes() == content
    assert run("verify") == 0


def test_a_rollback_that_the_disk_refuses_goes_on_when_it_is_repeated(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1", "2", "3"):
        release(version, "mlp", "bert")
        run("promote", "zoo")
    real = publication.publish

    def refuse(source: ExportDirectory, target: Path, result: ExportResult) -> None:
        if target.name == "bert":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target, result)

    with monkeypatch.context() as patch:
        patch.setattr(release_workspace, "publish", refuse)
        assert run("rollback", "zoo") == 5
    assert "exports/bert: [Errno 28] No space left on device" in capsys.readouterr().err
    assert aliases(store, "champion") == {"mlp": "3", "bert": "3"}
    assert run("rollback", "zoo") == 0
    assert aliases(store, "champion") == {"mlp": "2", "bert": "2"}
    for name in ("mlp", "bert"):
        assert ExportDirectory(Path("exports", name)).model.read_bytes().startswith(f"{name} 2".encode())
        # As they were when it was released.
        Path("made_from", name).write_text("2")
    assert "up to date" in dvc("status")


def test_without_dvc_a_rollback_moves_the_aliases_and_says_what_it_leaves(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    assert run("rollback", "zoo") == 0
    assert "exports/mlp: left as it is; DVC had no version of it in zoo-1" in capsys.readouterr().out
    assert aliases(store, "champion") == {"mlp": "1", "bert": "1"}
    # Not what was asked for, where the bytes are all that was.
    assert run("checkout", "zoo", "--release", "1") == 6
    assert "nothing of zoo-1 is in exports/: DVC has no version of any of its exports" in capsys.readouterr().err


def test_without_dvc_the_line_for_git_has_the_release(here: Path) -> None:
    git("init", "-q")
    publish("mlp")
    tracking = TrackingOptions(mlflow=False, dvc=False)
    batch, record = finish_batch("mlp", tracking=tracking)
    report = Tracker(tracking, make_options(version="1")).finish(batch, record)
    assert report.lines[-1] == "git:    git add releases/zoo-1 && git commit -m 'Release zoo'"


@pytest.mark.parametrize("moved", [True, False])
def test_nothing_is_put_in_place_beside_a_batch(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str], moved: bool
) -> None:
    release("1", "mlp", "bert")
    if moved:
        release("2", "mlp")
    with lock_output(Path("exports")):
        assert run("checkout", "zoo", "--release", "1") == 4
    assert "exports: in use by another run" in capsys.readouterr().err


def test_where_an_alias_cannot_be_moved_none_is(store: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    # bert comes second.
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        for event in ("INSERT", "UPDATE"):
            database.execute(
                f"CREATE TRIGGER refuse_{event} BEFORE {event} ON registered_model_aliases "
                "WHEN NEW.name = 'bert' AND NEW.version = 2 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        database.commit()
    assert run("promote", "zoo") == 6
    assert "nothing was promoted" in capsys.readouterr().err
    assert aliases(store, "champion") == {"mlp": "1", "bert": "1"}
    (first, second) = json.loads((RELEASES / "zoo.promotions.json").read_text())
    assert (first["state"], second["state"]) == ("done", "put_back")


@pytest.mark.parametrize("alias", ["latest", "V12", "a b", ""])
def test_what_mlflow_has_for_no_alias_is_refused_before_anything_is_written(
    store: MlflowClient, capsys: pytest.CaptureFixture[str], alias: str
) -> None:
    release("1", "mlp", "bert")
    assert run("promote", "zoo", "--to", alias) == 2
    assert capsys.readouterr().err.startswith(repr(alias))
    assert not (RELEASES / "zoo.promotions.json").exists()


def test_a_version_with_a_plus_is_registered_and_promoted(store: MlflowClient) -> None:
    publish("mlp")
    batch, record = finish_batch("mlp", tracking=TrackingOptions())
    report = Tracker(TrackingOptions(), make_options(version="1.0+cpu")).finish(batch, record)
    assert not report.is_behind, report.lines
    assert run("promote", "zoo") == 0
    assert aliases(store, "champion") == {"mlp": "1"}


@pytest.mark.parametrize("difference", ["gone", "of another release", "of other bytes"])
def test_versions_that_are_not_the_release_are_not_promoted(
    store: MlflowClient, capsys: pytest.CaptureFixture[str], difference: str
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    # As in another store, where the numbers are those of other models; or somebody has cleaned up.
    if difference == "gone":
        store.delete_model_version("bert", "2")
    elif difference == "of another release":
        store.delete_model_version_tag("bert", "2", "modelpress.in.zoo-2")
    else:
        store.set_model_version_tag("bert", "2", "modelpress.sha256.model.onnx", "0" * 64)
    assert run("promote", "zoo") == 2
    assert "bert version 2 is not what zoo-2 has" in capsys.readouterr().err
    assert aliases(store, "champion") == {"mlp": "1", "bert": "1"}
    assert len(json.loads((RELEASES / "zoo.promotions.json").read_text())) == 1


_KILLED = """
import os, signal, sys
from mlflow import MlflowClient
from registry_sync.__main__ import main
move, calls = MlflowClient.set_registered_model_alias, []
def die_at_the_second(*arguments):
    calls.append(arguments)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(*arguments)
MlflowClient.set_registered_model_alias = die_at_the_second
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_command_that_is_killed_between_two_aliases_is_undone_by_the_next(
    store: MlflowClient, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    if command == "rollback":
        run("promote", "zoo")
    environment = make_environment({"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)})
    done = subprocess.run([sys.executable, "-c", _KILLED, command, "zoo"], check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert aliases(store, "champion") in ({"mlp": "2", "bert": "1"}, {"mlp": "1", "bert": "2"})
    capsys.readouterr()
    assert run(command, "zoo") == 0
    assert "was cut off" in capsys.readouterr().out
    number = "2" if command == "promote" else "1"
    assert aliases(store, "champion") == {"mlp": number, "bert": number}


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_release_that_mlflow_never_heard_of_makes_no_store(
    template: Path, here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("mlp", "bert"):
        publish(name)
    tracking = TrackingOptions(mlflow=False, dvc=False)
    batch, record = finish_batch("mlp", "bert", tracking=tracking)
    Tracker(tracking, make_options(version="1")).finish(batch, record)
    assert run(command, "zoo") == 2
    assert capsys.readouterr().err == (
        "zoo-1 was made without MLflow (tracking.mlflow=false): register it in a store with "
        "python -m registry_sync sync --tracking-uri URI, and name that store here with --tracking-uri too\n"
    )
    elsewhere = f"sqlite:///{here}/elsewhere.db"
    assert run(command, "zoo", "--tracking-uri", elsewhere) == 2
    assert f"{elsewhere}: there is no such file" in capsys.readouterr().err
    assert not list(here.glob("*.db"))
    shutil.copy(template, "elsewhere.db")
    assert run("sync", "--tracking-uri", elsewhere) == 0
    assert run("promote", "zoo", "--tracking-uri", elsewhere) == 0
    assert run("rollback", "zoo", "--tracking-uri", elsewhere) == 0
    assert aliases(MlflowClient(tracking_uri=elsewhere), "champion") == {"mlp": None, "bert": None}
    assert [path.name for path in here.glob("*.db")] == ["elsewhere.db"]


def test_a_store_that_is_gone_is_not_made_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a fresh clone, which has releases/ and no mlflow.db."""
    release("1", "mlp", "bert")
    Path("mlflow.db").unlink()
    assert run("promote", "zoo") == 2
    assert "mlflow.db: there is no such file; name the store" in capsys.readouterr().err
    assert not Path("mlflow.db").exists()


def test_an_alias_that_somebody_else_has_moved_is_not_rolled_back(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    store.set_registered_model_alias("bert", "champion", "1")
    assert run("rollback", "zoo") == 2
    assert "bert@champion is version 1, and the last promotion made it 2" in capsys.readouterr().err
    assert aliases(store, "champion") == {"mlp": "2", "bert": "1"}


def test_a_release_that_did_not_pass_is_promoted_only_in_part(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("mlp")
    tracking = TrackingOptions()
    batch, record = finish_batch("mlp", failed=("bert",), tracking=tracking)
    Tracker(tracking, make_options(version="1")).finish(batch, record)
    assert run("promote", "zoo") == 1
    assert "zoo-1 did not pass (bert); see releases/zoo-1/changes.html" in capsys.readouterr().err
    assert aliases(store, "champion") == {"mlp": None}
    assert run("promote", "zoo", "--partial") == 0
    assert aliases(store, "champion") == {"mlp": "1"}


def test_a_release_without_dvc_in_between_does_not_keep_the_bytes_back(store: MlflowClient, repository: Path) -> None:
    release("1", "mlp", "bert")
    run("promote", "zoo")
    release("2", "mlp")
    directory, manifest = read("2")
    # As with tracking.dvc=false.
    models = [dataclasses.replace(model, dvc_hash="", dvc_lock={}) for model in manifest.models]
    directory.write_manifest(dataclasses.replace(manifest, models=models))
    release("3", "mlp", "bert")
    run("promote", "zoo")
    assert run("rollback", "zoo") == 0
    for name in ("mlp", "bert"):
        assert ExportDirectory(Path("exports", name)).model.read_bytes().startswith(f"{name} 1".encode())


def test_a_release_in_which_nothing_passed_is_no_champion(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, record = finish_batch(failed=("mlp", "bert"), tracking=TrackingOptions())
    Tracker(TrackingOptions(), make_options(version="1")).finish(batch, record)
    assert run("promote", "zoo", "--partial") == 1
    assert "zoo-1 has no model that was accepted; nothing was promoted" in capsys.readouterr().err
    assert run("checkout", "zoo") == 0
    assert capsys.readouterr().out == "zoo-1: no export passed in it; there is nothing to put in place\n"


def test_checkout_puts_the_bytes_of_a_release_in_place(store: MlflowClient, repository: Path) -> None:
    release("1", "mlp", "bert")
    release("2", "mlp")
    assert run("checkout", "zoo", "--release", "1") == 0
    assert subprocess.run(["sha256sum", "-c", "--quiet", "releases/zoo-1/SHA256SUMS"], check=False).returncode == 0
    assert len(find_releases(RELEASES)) == 2


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_exports_without_a_stage_are_released_and_come_back(
    store: MlflowClient, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dvc.yaml").unlink()
    Path(".gitignore").write_text("/exports/?*/\n")
    report = release("1", "mlp", "bert")
    assert (report.release_code, report.is_behind) == (ExitCode.OK, False), report.lines
    model = read("1")[1].find("mlp")
    assert model.dvc_hash in Path("exports/mlp.dvc").read_text()
    assert model.dvc_lock == {}
    git("add", ".")
    git("commit", "-qm", "Release 1")
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    assert run("rollback", "zoo") == 0
    assert "exports/mlp: as in zoo-1" in capsys.readouterr().out
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 1")
    assert git("status", "--porcelain", "--", "exports", "metrics", "metrics.json") == ""
    assert "up to date" in dvc("status")


def test_a_release_that_was_made_while_dvc_was_locked_can_be_gone_back_to(
    store: MlflowClient, repository: Path
) -> None:
    holding = (
        "import sys, dvc.repo\nwith dvc.repo.lock_repo(dvc.repo.Repo()): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        report = release("1", "mlp", "bert")
        holder.stdin.close()
    assert report.is_behind
    assert any("DVC's lock is held by another process" in line for line in report.lines)
    assert run("sync") == 0
    model = read("1")[1].find("mlp")
    assert model.dvc_hash in Path("dvc.lock").read_text()
    run("promote", "zoo")
    release("2", "mlp", "bert")
    run("promote", "zoo")
    assert run("rollback", "zoo") == 0
    assert ExportDirectory(Path("exports/mlp")).model.read_bytes().startswith(b"mlp 1")


def test_an_export_that_dvc_does_not_have_yet_has_the_hash_that_it_will_have(
    store: MlflowClient, repository: Path
) -> None:
    release("1", "mlp", "bert")
    publish("mlp", b"mlp by hand".ljust(100))
    tracking = TrackingOptions(mlflow=False)
    batch, record = finish_batch("mlp", up_to_date=("bert",), tracking=tracking)
    # Without the commit before it.
    make_release(batch, record, make_options(version="2"), RELEASES, tracking=tracking, budget=Budget(60))
    _, manifest = read("2")
    assert manifest.find("mlp").dvc_lock == {}
    assert manifest.find("mlp").dvc_hash not in Path("dvc.lock").read_text()
    assert manifest.find("bert").dvc_hash == read("1")[1].find("bert").dvc_hash
    dvc("commit", "-f", "exports/mlp")
    assert manifest.find("mlp").dvc_hash in Path("dvc.lock").read_text()


def test_a_registration_that_was_given_up_writes_nothing_later(server: Server, here: Path) -> None:
    """The server takes longer over the last request than the batch waits; by then another command may have the lock."""
    publish("late")
    given_up = threading.Event()

    def hold(request: Request) -> Fault:
        if request.path.endswith("registered-models/alias"):
            given_up.wait(60)
        return Fault.none

    with run_proxy(server.port) as proxy:
        tracking = TrackingOptions(uri=proxy.uri)
        batch, record = finish_batch("late", tracking=tracking)
        Tracker(tracking, make_options(version="1")).finish(batch, record)
        read("1")[0].registration.unlink()
        proxy.rule = hold
        with pytest.raises(SyncError, match="zoo-1: MLflow did not answer in time"):
            list(register_pending(RELEASES, budget_s=5.0))
        given_up.set()
        for thread in threading.enumerate():
            if thread.name == "MLflow":
                thread.join(60)
        assert proxy.requests[-1].path.endswith("registered-models/alias")
    assert read("1")[0].read_registration() is None
    assert run("sync", "--tracking-uri", server.uri) == 0
    assert read("1")[0].read_registration().versions == {"late": "1"}


def test_a_server_does_the_same_as_a_file(server: Server, here: Path) -> None:
    release("1", "mlp", "bert", uri=server.uri)
    assert run("promote", "zoo") == 0
    release("2", "mlp", "bert", uri=server.uri)
    client = MlflowClient(tracking_uri=server.uri)
    assert run("promote", "zoo") == 0
    assert aliases(client, "champion") == aliases(client, "candidate") == {"mlp": "2", "bert": "2"}
    assert run("rollback", "zoo", "--registry-only") == 0
    assert aliases(client, "champion") == {"mlp": "1", "bert": "1"}
    assert run("rollback", "zoo", "--registry-only") == 0
    assert aliases(client, "champion") == {"mlp": None, "bert": None}
