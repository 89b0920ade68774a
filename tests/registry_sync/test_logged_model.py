"""Models in a real MLflow store: the bytes that were published, and answers that are right."""

import hashlib
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from onnx_exports import expect, make_feeds, make_onnx_run, record_export

from exporter.directory import ExportDirectory
from exporter.errors import IntegrityError
from exporter.result import TensorRecord
from registry_sync import mlflow_log
from registry_sync.bounded import Budget
from registry_sync.logged_model import find_model, require_model
from registry_sync.options import TrackingOptions
from registry_sync.record import RunDirectory
from registry_sync.registered_version import find_version, register_version
from registry_sync.store import Store, open_store

# MLflow's own, as mlflow.pyfunc is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")

GOOD = ExportDirectory(Path("exports/good"))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log(run: RunDirectory, uri: str, experiment: str) -> tuple[Store, list[LoggedModel], str]:
    options = TrackingOptions(uri=uri, experiment=experiment)
    said = mlflow_log.log_batch(run, run.read_summary(), options)
    store = open_store(options)
    return store, list(store.client.search_logged_models([store.experiment_id])), said


def hash_files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_what_comes_back_are_the_published_bytes(here: Path, uri: str) -> None:
    _, (model,), _ = log(make_onnx_run(here), uri, "bytes")
    (here / "back").mkdir()
    back = mlflow.artifacts.download_artifacts(model.artifact_location, dst_path="back")
    recorded = {file.path: file.sha256 for file in GOOD.read_result().files}
    assert set(recorded) == {"model.onnx", "model.onnx.data"}
    assert {name: sha for name, sha in hash_files(Path(back)).items() if name in recorded} == recorded
    assert {name: model.tags[f"modelpress.sha256.{name}"] for name in recorded} == recorded
    # Nothing links to the published files: onnx would refuse to load them.
    assert GOOD.model_data.stat().st_nlink == 1
    onnx.load(GOOD.model)


def test_the_model_is_ready_and_linked_to_its_run_and_its_numbers(here: Path, uri: str) -> None:
    store, (model,), _ = log(make_onnx_run(here), uri, "linked")
    assert model.status == "READY"
    assert model.name == "good"
    run = store.client.get_run(model.source_run_id)
    assert run.data.tags["modelpress.export"] == "good"
    assert run.data.tags["modelpress.model_id"] == model.model_id
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["size_bytes"] == GOOD.read_result().size_bytes
    # Bytes are in one place only.
    assert "model.onnx" not in {item.path for item in store.client.list_artifacts(run.info.run_id)}
    wanted = {"modelpress.opset_version": "20", "modelpress.precision": "fp32", "modelpress.export": "good"}
    assert wanted.items() <= model.tags.items()
    assert model.tags["modelpress.fingerprint"] == run.data.tags["modelpress.fingerprint"]
    assert "modelpress.signature" not in model.tags


def test_a_dict_of_named_inputs_is_answered(here: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _, (model,), _ = log(make_onnx_run(here), uri, "answers")
    feeds = make_feeds()
    pyfunc = mlflow.pyfunc.load_model(model.model_uri)
    schema = {spec.name: (spec.type.name, spec.shape) for spec in pyfunc.metadata.get_input_schema()}
    assert schema == {
        "features": ("float32", (-1, 4)),
        "scale": ("float32", ()),
        "ids.0": ("int64", (-1,)),
        "keep": ("bool", (-1,)),
        "half": ("float16", (-1, 2)),
    }
    answers = pyfunc.predict(feeds)
    for name, value in expect(feeds).items():
        np.testing.assert_array_equal(answers[name], value)
        assert answers[name].dtype == value.dtype
    with pytest.raises(mlflow.MlflowException, match="dtype"):
        pyfunc.predict({**feeds, "keep": np.array([1, 0])})
    proto = mlflow.onnx.load_model(model.model_uri)
    assert [value.name for value in proto.graph.input] == list(feeds)


@pytest.mark.parametrize("unknown", ["onnx", "onnxruntime"])
def test_the_requirements_are_those_of_the_export(here: Path, uri: str, unknown: str) -> None:
    versions = {"python": "3.12.1", "onnx": "1.99.0", "onnxruntime": "1.98.0", unknown: ""}
    _, (model,), _ = log(make_onnx_run(here, versions=versions), uri, f"requirements without {unknown}")
    folder = Path(mlflow.artifacts.download_artifacts(model.artifact_location))
    lines = (folder / "requirements.txt").read_text().split()
    pinned = {"onnx": "onnx==1.99.0", "onnxruntime": "onnxruntime==1.98.0", unknown: unknown}
    assert lines == [f"mlflow=={mlflow.__version__}", *pinned.values()]
    assert "python: 3.12.1" in (folder / "python_env.yaml").read_text()
    assert "python=3.12.1" in (folder / "conda.yaml").read_text()


def test_what_a_signature_cannot_express_is_left_out_and_said(here: Path, uri: str) -> None:
    strange = TensorRecord(name="x", dtype="bfloat16", shape=[2])
    _, (model,), _ = log(make_onnx_run(here, inputs=[strange]), uri, "strange")
    assert model.tags["modelpress.signature"] == "no inputs: x is bfloat16, which MLflow cannot express"
    loaded = mlflow.models.Model.load(mlflow.artifacts.download_artifacts(model.artifact_location))
    assert loaded.get_input_schema() is None
    assert loaded.get_output_schema().input_names() == ["scores", "next.0", "dropped", "square"]


def test_a_file_for_its_owner_alone_can_be_read_by_others(here: Path, uri: str) -> None:
    run = make_onnx_run(here)
    GOOD.model_data.chmod(0o600)
    _, (model,), _ = log(run, uri, "modes")
    folder = Path(mlflow.artifacts.download_artifacts(model.artifact_location))
    assert {oct(path.stat().st_mode & 0o777) for path in folder.glob("model.onnx*")} == {
        oct(GOOD.result.stat().st_mode & 0o777)
    }


def test_an_id_with_signs_that_mlflow_refuses_keeps_its_name_in_a_tag(here: Path, uri: str) -> None:
    run = make_onnx_run(here)
    store = open_store(TrackingOptions(uri=uri, experiment="names"))
    result = GOOD.read_result()
    result.spec.id = "good-lr_0.5"
    record_export(here, run, GOOD, spec=result.spec)
    model = require_model(store, GOOD)
    assert model.name == "good-lr_0_5"
    assert model.tags["modelpress.export"] == "good-lr_0.5"


def test_damaged_bytes_are_not_logged_and_said(here: Path, uri: str) -> None:
    run = make_onnx_run(here)
    GOOD.model_data.write_bytes(b"\0" * GOOD.model_data.stat().st_size)
    store, models, said = log(run, uri, "damaged")
    assert models == []
    assert (
        said.splitlines()[-1]
        == "MLflow: good is logged without its model: exports/good: model.onnx.data not as recorded"
    )
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data"):
        require_model(store, GOOD)


def test_the_model_of_an_export_is_found_by_its_bytes(here: Path, uri: str) -> None:
    store, (model,), _ = log(make_onnx_run(here), uri, "found")
    result = GOOD.read_result()
    assert find_model(store, result).model_id == model.model_id
    assert require_model(store, GOOD).model_id == model.model_id
    GOOD.model.write_bytes(GOOD.model.read_bytes() + b"\x30\x0a")
    other = GOOD.record_files()
    assert [file.sha256 for file in other] != [file.sha256 for file in result.files]
    record_export(here, RunDirectory(Path("runs/20260101-000000-abcd")), GOOD)
    assert find_model(store, GOOD.read_result()) is None


def test_a_model_that_no_batch_has_logged_is_logged_once(here: Path, uri: str) -> None:
    make_onnx_run(here)
    store = open_store(TrackingOptions(uri=uri, experiment="adopted"), Budget(60))
    first = require_model(store, GOOD, release="zoo")
    assert first.status == "READY"
    assert first.tags["modelpress.release"] == "zoo"
    assert require_model(store, GOOD).model_id == first.model_id
    client = MlflowClient(tracking_uri=uri)
    assert len(client.search_logged_models([store.experiment_id])) == 1


def test_a_model_is_registered_once_and_loads_by_its_alias(
    here: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store, (model,), _ = log(make_onnx_run(here), uri, "registered")
    assert find_version(store, "good", model) is None
    version = register_version(store, "good", model, {"release": "zoo-1"})
    assert register_version(store, "good", store.client.get_logged_model(model.model_id), {}).version == version.version
    assert find_version(store, "good", model).tags["release"] == "zoo-1"
    assert len(store.client.search_model_versions("name = 'good'")) == 1
    store.client.set_registered_model_alias("good", "champion", version.version)
    assert len(mlflow.onnx.load_model("models:/good@champion").graph.node) == 5
    answers = mlflow.pyfunc.load_model("models:/good@champion").predict(make_feeds())
    np.testing.assert_array_equal(answers["scores"], expect(make_feeds())["scores"])
