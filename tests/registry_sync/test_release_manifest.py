"""What a release records of its exports, and how it is read back."""

import json
from pathlib import Path

import pytest
from batch_data import make_run
from onnx_exports import make_onnx_run
from release_data import make_manifest, make_model

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, IntegrityError
from exporter.evidence import CaseRecord, DimRecord, OutputParity
from exporter.files import hash_file, write_json
from exporter.plain_data import DataError
from registry_sync.release_contents import describe_exports
from registry_sync.release_manifest import ReleaseDirectory, Verdict, find_releases, require_release_name

GOOD = ExportDirectory(Path("exports/good"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_release_knows_every_file_and_what_the_export_is(here: Path) -> None:
    parity = OutputParity(
        output="y", passed=True, num_elements=4, num_mismatched=0, max_abs_diff=1e-7, max_rel_diff=1e-6
    )
    run = make_onnx_run(
        here,
        cases=[CaseRecord(name="example", sizes={"batch": 2}, seed=0, outputs=[parity])],
        dims=[DimRecord(name="batch", min=1, max=64, example=2, proven_sizes=[1, 2, 64])],
        op_counts={"MatMul": 1, "Mul": 2},
        latency_s=0.001,
    )
    write_json(
        GOOD.fingerprint,
        {
            "code.net.py": "a" * 64,
            "code.modelpress": "b" * 64,
            "data.words.txt": "c" * 64,
            f"data.{here}/more/vocabulary.txt": "d" * 64,
            "data./home/someone/merges.txt": "e" * 64,
            "weights": "f" * 64,
            "spec.seed": "1",
        },
    )
    (GOOD.path / "repro").mkdir()
    (GOOD.path / "repro/repro.py").write_text("1")
    (GOOD.path / ".hidden").write_text("")
    good, bad = describe_exports(run, run.read_summary())
    assert {file.path for file in good.files} == {
        *("model.onnx", "model.onnx.data", "fingerprint.json", "report.md", "result.json"),
        "repro/repro.py",
    }
    for file in good.files:
        path = GOOD.path / file.path
        assert (file.size_bytes, file.sha256) == (path.stat().st_size, hash_file(path))
    assert [file.path for file in good.model_files] == ["model.onnx", "model.onnx.data"]
    assert good.inputs[0].name == "features"
    assert good.inputs[0].shape == ["batch", 4]
    assert good.dims[0].proven_sizes == [1, 2, 64]
    assert good.op_counts == {"MatMul": 1, "Mul": 2}
    assert good.parity.max_abs_diff == 1e-7
    assert good.parity.atol == 1e-5
    assert good.measured.latency_s == 0.001
    assert good.measured.size_bytes == sum(file.size_bytes for file in good.model_files)
    assert good.source_sha256 == {"net.py": "a" * 64, "modelpress": "b" * 64}
    assert good.data_sha256 == {"words.txt": "c" * 64, "more/vocabulary.txt": "d" * 64, "merges.txt": "e" * 64}
    assert good.checkpoint_sha256 == "f" * 64
    assert (bad.verdict, bad.files) == (Verdict.failed, [])
    assert bad.failure is not None
    assert bad.failure.fingerprint


def test_damaged_bytes_are_not_released(here: Path) -> None:
    run = make_run(here)
    GOOD.model.write_bytes(b"onny")
    with pytest.raises(IntegrityError, match=r"exports/good: model\.onnx not as recorded"):
        describe_exports(run, run.read_summary())


def test_a_manifest_reads_back_as_it_was_written(here: Path) -> None:
    run = make_onnx_run(here)
    manifest = make_manifest(models=describe_exports(run, run.read_summary()))
    directory = ReleaseDirectory(here / "releases/zoo-1")
    directory.path.mkdir(parents=True)
    directory.write_manifest(manifest)
    assert directory.read_manifest() == manifest


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_a_broken_manifest_is_named(here: Path, text: str) -> None:
    directory = ReleaseDirectory(here)
    directory.manifest.write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        directory.read_manifest()


def test_releases_are_found_in_the_order_in_which_they_were_made(here: Path) -> None:
    made = [
        make_manifest("zoo", "b", created_at="2026-01-01T00:00:00+00:00"),
        make_manifest("zoo", "a", created_at="2026-01-02T00:00:00+00:00"),
        make_manifest("other", "c", created_at="2026-01-01T12:00:00+00:00"),
    ]
    for manifest in made:
        directory = ReleaseDirectory(here / "releases" / manifest.title)
        directory.path.mkdir(parents=True)
        directory.write_manifest(manifest)
    (here / "releases/.zoo-d.new").mkdir()
    (here / "releases/.zoo-d.new/manifest.json").write_text("{")
    (here / "releases/notes").mkdir()
    assert [manifest.title for _, manifest in find_releases(here / "releases")] == ["zoo-b", "other-c", "zoo-a"]
    assert [manifest.version for _, manifest in find_releases(here / "releases", "zoo")] == ["b", "a"]
    assert find_releases(here / "nowhere") == []


@pytest.mark.parametrize("text", ["", "a/b", "..", "-x", "a b", "ä"])
def test_names_that_no_directory_should_have_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"release\.version"):
        require_release_name(text, "release.version")


def test_a_model_in_a_manifest_is_found_by_its_id() -> None:
    manifest = make_manifest(models=[make_model("mlp")])
    assert manifest.find("mlp") is manifest.models[0]
    assert manifest.find("bert") is None
    assert json.dumps(manifest.title) == '"zoo-1"'
