"""What of a project goes to other machines, and how a file that is there is known for the one that is meant."""

import hashlib
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.spec import ExportSpec, Fill, FillKind, Input, ModelSpec, Precision, PrecisionName
from pipeline.on_ray import project
from pipeline.on_ray.messages import DataFile
from pipeline.on_ray.project import find_data, find_lacking, is_portable, stage_project


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def staged(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_code_and_small_data_go_along_and_what_tools_leave_stays(tmp_path, target):
    root = tmp_path / "project"
    for name in ("my_models.py", "package/part.py", "fill.npy", "src/exports/names.py"):
        write(root / name)
    for name in (
        *(".git/config", ".env", ".venv/x.py", "mlflow.db", "exports/a/model.onnx", "runs/1/summary.json"),
        *("package/__pycache__/part.pyc", "env/pyvenv.cfg", "env/x.py", "mlruns/0/x", "node_modules/x.js"),
        *("my.egg-info/PKG-INFO", "env/lib/python3.11/site-packages/y.py"),
    ):
        write(root / name)
    stage = stage_project(target, root, [""], ("exports", "runs"))
    assert staged(target) == {"0/my_models.py", "0/package/part.py", "0/fill.npy", "0/src/exports/names.py"}
    assert (stage.directory, stage.path) == ("0", ("0",))


def test_large_files_stay(tmp_path, target, monkeypatch):
    monkeypatch.setattr(project, "_MAX_FILE_BYTES", 10)
    write(tmp_path / "project/weights.bin", "x" * 11)
    write(tmp_path / "project/small.bin", "x" * 10)
    stage_project(target, tmp_path / "project", [], ())
    assert staged(target) == {"0/small.bin"}


@pytest.mark.parametrize(("limit", "value"), [("_MAX_BYTES", 5), ("_MAX_FILES", 2)])
def test_more_than_a_project_is_refused(tmp_path, target, monkeypatch, limit, value):
    monkeypatch.setattr(project, limit, value)
    for number in range(3):
        write(tmp_path / f"home/{number}.txt", "xx")
    with pytest.raises(ConfigError, match=r"run in the folder that has the model code"):
        stage_project(target, tmp_path / "home", [], ())


def test_other_folders_of_the_path_go_along_and_keep_their_order(tmp_path, target):
    root, other = tmp_path / "project", tmp_path / "other"
    write(root / "main.py")
    write(root / "src/models.py")
    write(other / "shared.py")
    write(tmp_path / "site-packages/installed.py")
    path = [str(other), "src", str(tmp_path / "site-packages"), str(tmp_path / "nowhere")]
    stage = stage_project(target, root, path, ())
    assert stage.directory == "0"
    assert stage.path == ("0", "1", "0/src")
    assert staged(target) == {"0/main.py", "0/src/models.py", "1/shared.py"}


def test_a_folder_of_the_path_within_what_stays_goes_along_by_itself(tmp_path, target):
    root = tmp_path / "project"
    write(root / ".tools/tool.py")
    stage = stage_project(target, root, [str(root / ".tools")], ())
    assert staged(target) == {"1/tool.py"}
    assert stage.path == ("0", "1")


def test_an_empty_project_is_a_folder_all_the_same(tmp_path, target):
    (tmp_path / "project").mkdir()
    stage = stage_project(target, tmp_path / "project", [], ())
    assert (target / stage.directory).is_dir()


def test_our_own_packages_stay_where_they_are_installed(target):
    repository = Path(project.__file__).resolve().parents[2]
    stage_project(target, repository, [str(repository)], ())
    assert (target / "0/pyproject.toml").is_file()
    assert not (target / "0/exporter").exists()


def make_spec(weights: str | None, *fills: str) -> ExportSpec:
    inputs = {
        f"x{number}": Input(shape=[2], fill=Fill(kind=FillKind.file, path=path)) for number, path in enumerate(fills)
    }
    model = ModelSpec(name="m", source={"_target_": "m.M"}, weights=weights, inputs=inputs)
    return ExportSpec(id="m", model=model, precision=Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5))


def test_the_data_of_a_spec_are_its_fills_and_all_files_of_its_checkpoint(tmp_path):
    write(tmp_path / "w/m.safetensors.index.json", '{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}')
    write(tmp_path / "w/m-1.safetensors")
    write(tmp_path / "w/m-2.safetensors")
    spec = make_spec("w/m.safetensors.index.json", "x.npy", "x.npy")
    names = ["x.npy", "w/m.safetensors.index.json", "w/m-1.safetensors", "w/m-2.safetensors"]
    assert find_data(spec, tmp_path) == [(name, tmp_path / name) for name in names]
    assert find_data(make_spec("/data/w.pt"), tmp_path) == [("/data/w.pt", Path("/data/w.pt"))]


def describe(name: str, place: Path, text: str) -> DataFile:
    return DataFile(name, str(place), len(text), hashlib.sha256(text.encode()).hexdigest())


def test_a_file_of_the_same_bytes_is_there_and_another_of_that_name_and_size_is_not(tmp_path):
    write(tmp_path / "same.npy", "same")
    write(tmp_path / "other.npy", "othr")
    elsewhere = tmp_path / "nowhere"
    files = [describe(name, elsewhere / name, "same") for name in ("same.npy", "other.npy", "absent.npy")]
    assert set(find_lacking(files, tmp_path, {})) == {"other.npy", "absent.npy"}


def test_a_file_that_is_seen_where_the_batch_has_it_is_linked_to(tmp_path):
    place = write(tmp_path / "shared/deep/w.pt", "same")
    own = tmp_path / "own"
    assert not find_lacking([describe("deep/w.pt", place, "same")], own, {})
    assert (own / "deep/w.pt").read_text() == "same"
    assert place.read_text() == "same"


def test_a_file_by_an_absolute_path_is_looked_for_there_alone(tmp_path):
    place = write(tmp_path / "w.pt", "other")
    assert set(find_lacking([describe(str(place), place, "same")], tmp_path / "own", {})) == {str(place)}
    assert place.read_text() == "other"
    assert not find_lacking([describe(str(place), place, "other")], tmp_path / "own", {})


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.pt", True), ("/a.pt", False), ("../a.pt", False), ("a/../../b", False)]
)
def test_only_what_is_named_within_the_project_can_be_put_there(name, expected):
    assert is_portable(name) is expected
