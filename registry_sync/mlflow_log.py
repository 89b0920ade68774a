"""Logs a batch to MLflow: a run for the batch, under it one for each export that was carried out, and models.

Every run and every model is found again by a tag, so that logging a batch twice, or once more after a crash, changes
nothing.
"""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from exporter.directory import ExportDirectory
from exporter.errors import IntegrityError, SyncError
from exporter.files import write_json
from exporter.plain_data import DataError, flatten, to_plain
from exporter.result import ExportResult
from registry_sync.baseline import find_baseline
from registry_sync.batch_page import write_batch_page
from registry_sync.bounded import Budget
from registry_sync.earlier_runs import find_earlier_runs
from registry_sync.keyed import Keyed
from registry_sync.logged_model import holds_result, log_model, search_models
from registry_sync.metrics import collect_batch_metrics, collect_metrics, collect_step_metrics
from registry_sync.options import TrackingOptions
from registry_sync.record import ENDED, BatchRecord, ExportRecord, Outcome, RunDirectory
from registry_sync.run_files import choose_files
from registry_sync.store import Store, open_store
from registry_sync.summary import render_summary
from registry_sync.tags import (
    KEY_TAG,
    MODEL_ID_TAG,
    RUN_ID_TAG,
    cut_text,
    describe_batch,
    describe_export,
    describe_model,
)

__all__ = ["log_batch"]

_PARENT_TAG = "mlflow.parentRunId"
_MAX_PARAM = 6000
# As many as an MLflow server has workers, if nobody says otherwise.
_NUM_THREADS = 4


def log_batch(run: RunDirectory, record: BatchRecord, options: TrackingOptions, budget: Budget | None = None) -> str:
    """Log a batch, its exports and their models; what is already there is left as it is.

    Returns:
        Lines for the user: where to look, and what could not be logged as it should.

    Raises:
        SyncError: MLflow did not take it, or another process is at it.
    """
    store = open_store(options, budget)
    with _lock(run, store.budget):
        problems = _BatchLog(store, run, record).write()
    return "\n".join([store.describe_place(), *problems])


@contextmanager
def _lock(run: RunDirectory, budget: Budget) -> Iterator[None]:
    """The kernel lets go of it however the process ends."""
    lock = FileLock(run.mlflow_lock)
    try:
        lock.acquire(timeout=max(0.0, budget.left_s))
    except Timeout:
        raise SyncError("another process is logging this batch; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


class _BatchLog:
    """One batch on its way into a store."""

    def __init__(self, store: Store, run: RunDirectory, record: BatchRecord) -> None:
        self._store = store
        self._client = store.client
        self._run = run
        self._record = record
        self._runs = Keyed(store, self._search_runs, _rank_run, self._delete_run)
        self._models = search_models(store, RUN_ID_TAG, record.run_id)
        self._problems: list[str] = []

    def write(self) -> list[str]:
        """Log what is not there; returns lines on what cannot be logged as it should."""
        parent = self._require_run(describe_batch(self._record), self._record.name, self._record.started_at)
        ended = [export for export in self._record.exports if export.outcome in ENDED]
        results = {export.id: self._run.read_result(export.id) for export in ended}
        log = partial(self._log_export, parent.info.run_id)
        if self._store.is_remote:
            # A server answers one request while the next is on its way; a database in a file has one writer.
            with ThreadPoolExecutor(_NUM_THREADS, "MLflow") as pool:
                children = list(pool.map(log, ended, results.values()))
        else:
            children = list(map(log, ended, results.values()))
        if parent.info.status == "RUNNING":
            links = {export.id: self._locate(child) for export, child in zip(ended, children, strict=True)}
            self._log_summary(parent.info.run_id, results | self._read_up_to_date(), links)
        self._runs.remove_doubles()
        self._models.remove_doubles()
        ids = {"run_id": parent.info.run_id, "experiment_id": self._store.experiment_id}
        with self._store.budget.waited_for():
            write_json(self._run.mlflow_marker, ids)
        return self._problems

    def _locate(self, run_id: str) -> str:
        """A run's page, as one page of MLflow's links to another."""
        return f"#/experiments/{self._store.experiment_id}/runs/{run_id}"

    def _read_up_to_date(self) -> dict[str, ExportResult]:
        results = {}
        for export in self._record.exports:
            if export.outcome is Outcome.up_to_date:
                with suppress(OSError, DataError):
                    results[export.id] = ExportDirectory(Path(export.directory)).read_result()
        return results

    def _log_summary(self, run_id: str, results: Mapping[str, ExportResult], links: Mapping[str, str]) -> None:
        record = self._record
        baseline = find_baseline(self._run, record) or find_earlier_runs(self._store, record)
        page = f"{self._locate(run_id)}/artifacts/{self._run.page.name}"
        note = render_summary(record, results, baseline, links, page)
        metrics = collect_batch_metrics(record, results)
        tags = {"mlflow.note.content": cut_text(note)}
        self._log_values(run_id, metrics=_make_metrics(metrics, record.ended_at), tags=tags)
        # Again: MLflow may know an earlier batch that the disk does not, and a killed run has no page.
        with self._store.budget.waited_for():
            write_batch_page(self._run, record, baseline)
        self._upload(run_id, {path.name: path for path in (self._run.page, self._run.summary, self._run.events)})
        self._store.call(self._client.log_text, run_id, note, "summary.md")
        failed = record.count(Outcome.failed) + record.count(Outcome.unproven)
        self._end_run(run_id, "FAILED" if failed else "FINISHED", record.ended_at)

    def _log_export(self, parent_id: str, export: ExportRecord, result: ExportResult) -> str:
        """Log one export as a run under the batch's; returns its id."""
        tags = {**describe_export(self._record, export, result), _PARENT_TAG: parent_id}
        child = self._require_run(tags, export.id, result.started_at)
        run_id = str(child.info.run_id)
        if child.data.tags.get(_PARENT_TAG) != parent_id:
            # Of two parents with one key, the one that was kept is another than it was when this run was made.
            self._store.call(self._client.set_tag, run_id, _PARENT_TAG, parent_id)
        if child.info.status != "RUNNING":
            return run_id
        directory = ExportDirectory(Path(export.directory))
        is_there = holds_result(directory, result)
        model, tags = None, {}
        if is_there and export.outcome is Outcome.passed:
            model, tags = self._log_model(run_id, export, result, directory)
            # The batch that replaces an export may do so while it is read.
            is_there = model is not None or holds_result(directory, result)
        files, more_tags = choose_files(self._run, export, is_there=is_there)
        self._log_result(run_id, result, model, {**more_tags, **tags})
        if model is not None:
            self._link_model(run_id, model)
        self._upload(run_id, files)
        self._end_run(run_id, "FINISHED" if export.outcome is Outcome.passed else "FAILED", result.ended_at)
        return run_id

    def _log_model(
        self, run_id: str, export: ExportRecord, result: ExportResult, directory: ExportDirectory
    ) -> tuple[LoggedModel | None, dict[str, str]]:
        """Log the model of an export that passed; returns it, if it could be, and a tag for the run."""
        tags = {
            **describe_model(result, directory, release=self._record.release),
            KEY_TAG: f"{self._record.run_id}/{export.id}",
            RUN_ID_TAG: self._record.run_id,
        }
        try:
            model = log_model(self._store, self._models, directory, result, tags, run_id)
        except IntegrityError as error:
            self._problems.append(f"MLflow: {export.id} is logged without its model: {error}")
            return None, {"modelpress.model_missing": str(error)}
        return model, {MODEL_ID_TAG: model.model_id} if model is not None else {}

    def _log_result(
        self, run_id: str, result: ExportResult, model: LoggedModel | None, tags: Mapping[str, str]
    ) -> None:
        params = {_clean_key(name): str(value)[:_MAX_PARAM] for name, value in flatten(to_plain(result.spec)).items()}
        model_id = model.model_id if model is not None else None
        metrics = [
            *_make_metrics(collect_metrics(result), result.ended_at, model_id),
            *_make_metrics(collect_step_metrics(result), result.ended_at),
        ]
        self._log_values(run_id, metrics=metrics, params=params, tags=tags)

    def _link_model(self, run_id: str, model: LoggedModel) -> None:
        def link() -> None:
            try:
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            except MlflowException:
                # A link that is there already is refused, too.
                outputs = self._client.get_run(run_id).outputs
                if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
                    raise

        self._store.call(link)

    def _log_values(
        self,
        run_id: str,
        *,
        metrics: list[Metric],
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._store.call(
            self._client.log_batch,
            run_id,
            metrics=metrics,
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def _upload(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Log files under their names, which may begin with folders."""
        for name, path in files.items():
            folder = name.rpartition("/")[0]
            self._store.call(self._client.log_artifact, run_id, str(path), folder or None)

    def _require_run(self, tags: dict[str, str], name: str, started_at: str) -> Run:
        """The run with the key among the tags; RUNNING until all of it is logged, so that a broken one is resumed."""
        all_tags = {**tags, "mlflow.runName": name}
        return self._runs.find_or_create(
            tags[KEY_TAG],
            lambda: self._client.create_run(
                self._store.experiment_id, start_time=_milliseconds(started_at), tags=all_tags
            ),
        )

    def _end_run(self, run_id: str, status: str, ended_at: str) -> None:
        self._store.call(self._client.set_terminated, run_id, status=status, end_time=_milliseconds(ended_at))

    def _search_runs(self) -> list[tuple[str, Run]]:
        condition = f"tags.`{RUN_ID_TAG}` = '{self._record.run_id}'"
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._store.experiment_id], condition, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return [(run.data.tags.get(KEY_TAG, ""), run) for run in found]

    def _delete_run(self, run: Run) -> None:
        self._client.delete_run(run.info.run_id)


def _rank_run(run: Run) -> tuple[bool, str]:
    return run.info.status == "RUNNING", run.info.run_id


def _make_metrics(metrics: Mapping[str, float], at: str, model_id: str | None = None) -> list[Metric]:
    timestamp = _milliseconds(at)
    return [Metric(name, float(value), timestamp, 0, model_id=model_id) for name, value in metrics.items()]


def _clean_key(key: str) -> str:
    """MLflow takes letters, digits and a few signs in a key, 250 at the most."""
    return re.sub(r"[^\w\-. /:]", "_", key)[:250]


def _milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
