import json
import time
from pathlib import Path

import pytest

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, StorageError
from exporter.files import write_json
from exporter.published import read_published
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.versions import library_versions
from pipeline.cli import run
from pipeline.config import Config
from pipeline.fingerprint import take_fingerprint
from pipeline.plan import Job, Planner

ELSEWHERE = "or choose another place with output.exports=DIR"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_spec(export_id: str = "net") -> ExportSpec:
    return ExportSpec(
        id=export_id,
        model=ModelSpec(name="net", source={"_target_": "worker_models.Doubles"}, inputs={"x": Input(shape=[2])}),
        precision=Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5),
    )


def publish_export(export_id: str = "net") -> ExportDirectory:
    spec = make_spec(export_id)
    directory = ExportDirectory(Path("exports") / export_id)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(b"a graph")
    write_json(directory.spec, spec)
    write_json(directory.fingerprint, take_fingerprint(spec))
    write_result(directory, describe_result(spec, None, time.time(), files=directory.record_files()))
    return directory


def plan(*ids: str, **settings):
    spec = make_spec()
    config = Config(model=spec.model, precision=spec.precision, **settings)
    planner = Planner(config)
    for export_id in ids:
        planner.add(Job(make_spec(export_id), config))
    return planner.finish()


def refusal(*ids: str, **settings) -> str:
    """The message, after a look that nothing was touched."""
    before = snapshot()
    with pytest.raises(StorageError) as caught:
        plan(*ids, **settings)
    assert caught.value.exit_code is ExitCode.STORAGE
    assert snapshot() == before
    return str(caught.value)


def snapshot() -> dict[str, object]:
    """Everything in the working directory, and what is in it; no link is followed."""
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(Path().rglob("*"))
    }


def make_file() -> str:
    Path("exports").mkdir()
    Path("exports/net").write_text("a file")
    return f"exports/net: is a file, where an export's directory has to be; move it, {ELSEWHERE}"


def make_link() -> str:
    publish_export("other")
    Path("exports/net").symlink_to("other")
    return f"exports/net: is a symbolic link, where an export's directory has to be; move it, {ELSEWHERE}"


def make_dangling_link() -> str:
    Path("exports").mkdir()
    Path("exports/net").symlink_to("nowhere")
    return f"exports/net: is a symbolic link, where an export's directory has to be; move it, {ELSEWHERE}"


def make_folder_of_other_files() -> str:
    Path("exports/net/sub").mkdir(parents=True)
    Path("exports/net/notes.txt").write_text("mine")
    Path("exports/net/model.onnx").write_bytes(b"mine too")
    return f"exports/net: holds files, and no export of modelpress's; move it, {ELSEWHERE}"


def make_folder_with_a_result_of_something_else() -> str:
    Path("exports/net").mkdir(parents=True)
    Path("exports/net/result.json").write_text('{"accuracy": 0.9}')
    return f"exports/net: holds files, and no export of modelpress's; move it, {ELSEWHERE}"


def make_newer_export() -> str:
    directory = publish_export()
    data = json.loads(directory.result.read_text())
    data |= {"schema_version": 7, "unheard_of": [], "versions": {"modelpress": "9.9"}}
    directory.result.write_text(json.dumps(data))
    ours = library_versions()["modelpress"]
    return (
        f"exports/net/result.json: has schema_version 7 of modelpress 9.9; modelpress {ours} reads 1; "
        f"upgrade modelpress, {ELSEWHERE}"
    )


OBSTACLES = [
    make_file,
    make_link,
    make_dangling_link,
    make_folder_of_other_files,
    make_folder_with_a_result_of_something_else,
    make_newer_export,
]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("make", OBSTACLES)
def test_what_is_not_ours_to_replace_is_refused_and_left_as_it_is(make, force):
    expected = make()
    assert refusal("net", force=force) == expected


def test_a_newer_export_that_does_not_say_by_whom_is_refused_too():
    directory = publish_export()
    directory.result.write_text('{"schema_version": 2}')
    assert "result.json: has schema_version 2; modelpress" in refusal("net")


def test_all_obstacles_are_told_at_once():
    Path("exports").mkdir()
    for name in ("a", "c"):
        Path("exports", name).touch()
    publish_export("b")
    assert [line.split(":")[0] for line in refusal("a", "b", "c", "d").splitlines()] == ["exports/a", "exports/c"]


def test_obstacles_are_told_beside_mistakes_in_the_config():
    make_file()
    with pytest.raises(ConfigError) as caught:
        plan("other", "other", "net")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["id", "exports/net"]


def test_an_empty_folder_is_room_for_a_new_export():
    Path("exports/net").mkdir(parents=True)
    assert [item.reason for item in plan("net")] == ["new"]


@pytest.mark.parametrize(
    "left", [{"spec.json"}, {"result.json"}, {"fingerprint.json"}, {"spec.json", "result.json"}], ids=sorted
)
def test_the_ruin_of_an_export_is_made_anew(left):
    for path in publish_export().path.iterdir():
        if path.name not in left:
            path.unlink()
    (planned,) = plan("net")
    assert planned.reason == ("fingerprint.json is missing" if "result.json" in left else "result.json is missing")


@pytest.mark.parametrize("names", [("spec.json", "result.json"), ("result.json", "fingerprint.json")])
def test_an_export_whose_records_were_all_cut_off_is_made_anew(names):
    directory = publish_export()
    for path in directory.path.iterdir():
        path.unlink()
    for name in names:
        (directory.path / name).touch()
    assert [item.reason for item in plan("net")] == ["result.json is broken"]


def test_a_place_that_cannot_be_read_is_refused(monkeypatch):
    directory = publish_export()

    def refuse(_self):
        raise PermissionError(13, "Permission denied", str(directory.path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert read_published(directory.path).obstacle == (f"exports/net: Permission denied; make it readable, {ELSEWHERE}")


def test_the_command_refuses_with_the_code_of_the_environment_before_anything_starts(folder, capfd):
    Path("exports/mlp").mkdir(parents=True)
    Path("exports/mlp/thesis.tex").write_text("irreplaceable")
    before = snapshot()
    assert run(["modelpress", "+model=mlp", "tracking=off", "force=true"]) is ExitCode.STORAGE
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("modelpress: exports/mlp: holds files, and no export of modelpress's; ")
    after = snapshot()
    after.pop(".exports.lock", None)
    assert after == before
