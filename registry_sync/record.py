"""The record of one batch: what summary.json under runs/<run id>/ holds.

The pipeline writes it, MLflow and DVC are brought up to date from it, at once or later.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from exporter.files import read_json, write_json
from exporter.plain_data import DataError, from_plain
from exporter.result import ExportResult, Failure, Rung
from registry_sync.options import TrackingOptions

__all__ = ["ENDED", "GOOD", "REVIEWED", "BatchRecord", "ExportRecord", "Outcome", "RunDirectory"]

SCHEMA_VERSION = 1


class Outcome(StrEnum):
    """How one export of a batch ended."""

    passed = "passed"
    up_to_date = "up_to_date"
    failed = "failed"
    unproven = "unproven"
    cancelled = "cancelled"

    @property
    def words(self) -> str:
        """As a person reads it."""
        return self.value.replace("_", " ")


# Of an export that was carried out, and has a result of its own.
ENDED = (Outcome.passed, Outcome.failed, Outcome.unproven)
# Of an export that is published.
GOOD = (Outcome.passed, Outcome.up_to_date)
# As a reviewer reads them: what has to be looked at comes first.
REVIEWED = (Outcome.failed, Outcome.unproven, Outcome.cancelled, Outcome.passed, Outcome.up_to_date)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """One line of a batch's summary."""

    id: str
    model: str
    outcome: Outcome
    failure: Failure | None = None
    # Relative to the working directory: under exports/ if published, else under runs/.
    directory: str
    # Why it was exported: "new", "opset_version 18 -> 21", ...; empty if up to date.
    reason: str = ""
    duration_s: float = 0.0
    opset_version: int
    precision: str
    max_abs_diff: float | None = None
    # The error that came nearest to its limit, as a part of it, and ONNX Runtime's in multiples of PyTorch's own.
    max_limit_share: float | None = None
    max_noise_ratio: float | None = None
    export_peak_bytes: int | None = None
    size_bytes: int = 0
    num_nodes: int = 0
    latency_s: float | None = None
    # The ways round a failure that a passed export needed.
    rescued_by: list[Rung] = field(default_factory=list)
    # How often it was begun in this run; more than once only where the first try says nothing of the export.
    num_tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One invocation: what was asked for, what came of it, and where it is to be tracked."""

    run_id: str
    # The release's name, or the exports' where it was none.
    name: str
    release: str | None
    command: list[str]
    started_at: str
    ended_at: str
    duration_s: float
    exit_code: int
    git_commit: str
    exports: list[ExportRecord]
    tracking: TrackingOptions
    # The folder with a file of numbers for each export, for `dvc metrics`.
    metrics: str = "metrics"
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def has_news(self) -> bool:
        """Whether any export was carried out; trackers do not hear of a batch in which nothing was due."""
        return any(export.outcome in ENDED for export in self.exports)

    def count(self, outcome: Outcome) -> int:
        return sum(1 for export in self.exports if export.outcome is outcome)


@dataclass(frozen=True)
class RunDirectory:
    """runs/<run id>/: the only place that knows the names of its files."""

    path: Path

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def plan(self) -> Path:
        """What the batch set out to do; of use only where it was killed before it could write its summary."""
        return self.path / "plan.json"

    @property
    def page(self) -> Path:
        """The batch for a browser; rendered from the summary, where anything was carried out."""
        return self.path / "index.html"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def server_log(self) -> Path:
        """What was printed where no worker could be run at all; there only then."""
        return self.path / "fork_server.log"

    @property
    def log(self) -> Path:
        """What libraries printed and logged in the parent while the batch ran; it is not there if they did not."""
        return self.path / "modelpress.log"

    @property
    def results(self) -> Path:
        """A copy of each result: exports/ shows only the last one of an export, a run shows its own."""
        return self.path / "results"

    @property
    def mlflow_marker(self) -> Path:
        """Holds the MLflow run's id once everything is logged."""
        return self.path / "mlflow.json"

    @property
    def mlflow_lock(self) -> Path:
        """Held by the process that logs this batch."""
        return self.path / ".mlflow.lock"

    def export_directory(self, export_id: str) -> Path:
        """Where the worker writes; there still if the export was not published."""
        return self.path / "exports" / export_id

    def result(self, export_id: str) -> Path:
        return self.results / f"{export_id}.json"

    def read_result(self, export_id: str) -> ExportResult:
        return from_plain(ExportResult, read_json(self.result(export_id)))

    def write_summary(self, record: BatchRecord) -> None:
        write_json(self.summary, record, is_durable=True)

    def read_summary(self) -> BatchRecord:
        """Read summary.json.

        Raises:
            DataError: It is broken, or a newer modelpress wrote it.
            FileNotFoundError: There is none: the batch is at work, or was killed before its end and the next one on
                its exports/ has not been started.
        """
        data = read_json(self.summary)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"{self.summary}: schema_version is {version!r}, this modelpress reads {SCHEMA_VERSION}")
        return from_plain(BatchRecord, data)
