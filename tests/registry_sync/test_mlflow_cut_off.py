"""Logging to sqlite that is cut off at each of its calls in turn, before the call and after it, and run again."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from onnx_exports import make_onnx_run

from registry_sync import mlflow_log
from registry_sync.options import TrackingOptions
from registry_sync.tags import KEY_TAG

pytestmark = pytest.mark.slow

# All that changes the store.
METHODS = (
    "create_run",
    "create_logged_model",
    "log_model_artifact",
    "finalize_logged_model",
    "log_batch",
    "log_outputs",
    "log_artifact",
    "log_text",
    "set_terminated",
)


def cut_off(patch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
    """Have the call of this number end the process, as far as an exception that nobody catches can."""
    count = 0

    def wrap(method):
        def call(*arguments, **named):
            nonlocal count
            count += 1
            if count == at and not after:
                raise KeyboardInterrupt
            done = method(*arguments, **named)
            if count == at:
                raise KeyboardInterrupt
            return done

        return call

    for name in METHODS:
        patch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cut_off_at_each_call_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_onnx_run(tmp_path)
    record = run.read_summary()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    for at in range(1, 100):
        options = TrackingOptions(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment=f"cut at {at}")
        with monkeypatch.context() as patch:
            cut_off(patch, at, after=after)
            try:
                mlflow_log.log_batch(run, record, options)
            except KeyboardInterrupt:
                pass
            else:
                break
        mlflow_log.log_batch(run, record, options)
        experiment = client.get_experiment_by_name(options.experiment).experiment_id
        runs = client.search_runs([experiment])
        assert len({entry.data.tags[KEY_TAG] for entry in runs}) == len(runs) == 3, at
        assert "RUNNING" not in {entry.info.status for entry in runs}, at
        (model,) = client.search_logged_models([experiment])
        assert model.status == "READY", at
        (good,) = (entry for entry in runs if entry.info.run_id == model.source_run_id)
        linked = client.get_run(good.info.run_id).outputs.model_outputs
        assert [output.model_id for output in linked] == [model.model_id], at
    # Two exports, of which one has a model of six files.
    assert at > 20
