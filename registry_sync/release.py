"""Makes a release of a finished batch: judged, written, registered; what is there already is left as it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from exporter.errors import ExitCode, ModelpressError, SyncError
from exporter.files import read_json
from exporter.plain_data import DataError
from registry_sync.bounded import Budget, call_bounded
from registry_sync.options import TrackingOptions
from registry_sync.record import BatchRecord, RunDirectory
from registry_sync.release_bytes import add_dvc_records
from registry_sync.release_manifest import Manifest, Registration, ReleaseDirectory, find_releases
from registry_sync.release_options import ReleaseOptions
from registry_sync.release_writer import Draft, draft_release, lock_releases, require_free, write_release

if TYPE_CHECKING:
    from registry_sync.store import Store

__all__ = ["ReleaseReport", "make_release", "register_pending"]

# Lines on models that were refused; the page has all.
_MAX_REFUSED = 5

T = TypeVar("T")


@dataclass
class ReleaseReport:
    """What to tell the user, and how the command is to end."""

    lines: list[str] = field(default_factory=list)
    # 1 where the release did not pass, 5 and 7 where it could not be made.
    code: ExitCode = ExitCode.OK
    # Written, and not registered.
    is_behind: bool = False


def make_release(
    run: RunDirectory,
    record: BatchRecord,
    options: ReleaseOptions,
    root: Path,
    *,
    tracking: TrackingOptions,
    budget: Budget,
    is_mlflow_away: bool = False,
) -> ReleaseReport:
    """Release a batch; failures come back as lines.

    Args:
        run: Of the batch, which is finished.
        record: Of the batch.
        options: What the release is to hold.
        root: Where releases are.
        tracking: Where it is registered, credentials included.
        budget: Of the whole batch for MLflow.
        is_mlflow_away: It has just kept the batch waiting in vain; it is not asked again.
    """
    report = ReleaseReport()
    mlflow = _Registry(tracking, budget, is_away=is_mlflow_away) if tracking.mlflow else None
    try:
        with lock_releases(root):
            with budget.paused():
                draft = draft_release(run, record, options, root)
            _make(run, draft, options, root, mlflow, report, budget, has_dvc=tracking.dvc)
    except (ModelpressError, DataError, OSError) as error:
        report.code = error.exit_code if isinstance(error, ModelpressError) else ExitCode.STORAGE
        report.lines.append(f"no release was made: {error}")
    return report


def register_pending(root: Path, uri: str | None = None, budget_s: float | None = None) -> Iterator[str]:
    """Register the releases that MLflow has not heard of, oldest first; yields lines for the user.

    Args:
        root: Where releases are.
        uri: Instead of the tracking URI that each was made with; then also those that were to be registered nowhere.
        budget_s: Longest wait over one release, in seconds; None: as each was made with.

    Raises:
        SyncError: MLflow did not take some; the others are registered, unless a store let a whole budget pass.
        DataError: A manifest is broken.
    """
    if not root.is_dir():
        return
    behind: list[str] = []
    with lock_releases(root):
        releases = find_releases(root)
        newest = {manifest.name: manifest.version for _, manifest in releases}
        for directory, manifest in releases:
            if (manifest.tracking.mlflow or uri is not None) and directory.read_registration() is None:
                options = replace(manifest.tracking, uri=uri or manifest.tracking.uri)
                budget = Budget(budget_s or options.budget_s)
                mlflow = _Registry(options, budget)
                mlflow.register(directory, manifest, is_newest=newest[manifest.name] == manifest.version)
                if not mlflow.problem:
                    yield f"{manifest.title}: registered in MLflow"
                    continue
                behind.append(f"{manifest.title}: {mlflow.problem}")
                if budget.left_s <= 0:
                    # It would keep us waiting as long for each.
                    behind.append("later releases were not tried")
                    break
    if behind:
        raise SyncError("\n".join(behind))


class _Registry:
    """MLflow, asked only as long as it answers."""

    def __init__(self, options: TrackingOptions, budget: Budget, *, is_away: bool = False) -> None:
        self._options = options
        self._budget = budget
        # Why it is not asked any more.
        self.problem = "MLflow is behind" if is_away else ""

    def add_ids(self, run: RunDirectory, manifest: Manifest) -> Manifest:
        """The manifest with MLflow's names for its models and its batch; as it is where MLflow is away."""

        def add(store: "Store") -> Manifest:
            from registry_sync.release_registration import add_mlflow_ids

            return replace(add_mlflow_ids(store, manifest), mlflow_run_id=_find_run(run))

        return self._ask(add) or manifest

    def register(self, directory: ReleaseDirectory, manifest: Manifest, *, is_newest: bool = True) -> None:
        def register(store: "Store") -> Registration:
            from registry_sync.release_registration import register_release

            return register_release(store, directory, manifest, is_newest=is_newest)

        self._ask(register)

    def _ask(self, function: Callable[["Store"], T]) -> T | None:
        def call() -> T:
            from registry_sync.store import open_store

            return function(open_store(self._options, self._budget))

        if self.problem:
            return None
        try:
            return call_bounded(call, self._budget, "MLflow")
        except SyncError as error:
            self.problem = str(error)
            return None


def _make(
    run: RunDirectory,
    draft: Draft,
    options: ReleaseOptions,
    root: Path,
    mlflow: _Registry | None,
    report: ReleaseReport,
    budget: Budget,
    *,
    has_dvc: bool,
) -> None:
    if draft.unchanged is not None:
        directory, manifest = draft.unchanged
        report.lines.append(f"release: nothing new since {manifest.title}")
    else:
        require_free(ReleaseDirectory(root / draft.manifest.title))
        with budget.paused():
            manifest = _add_dvc_records(draft.manifest, report) if has_dvc else draft.manifest
        if mlflow is not None:
            manifest = mlflow.add_ids(run, manifest)
        key = Path(options.sign_key) if options.sign_key is not None else None
        with budget.paused():
            directory = write_release(root, manifest, _render(manifest, [one for _, one in draft.earlier]), key)
        report.lines.append(f"release: {manifest.title}, {directory.page}")
    report.lines.extend(_describe_verdict(manifest))
    if not manifest.passed:
        report.code = ExitCode.EXPORT_FAILED
    if mlflow is not None and directory.read_registration() is None:
        mlflow.register(directory, manifest)
        if mlflow.problem:
            report.is_behind = True
            report.lines.append(f"{manifest.title} is not registered: {mlflow.problem}")
            report.lines.append("  catch up with: python -m registry_sync sync")


def _add_dvc_records(manifest: Manifest, report: ReleaseReport) -> Manifest:
    """The manifest with DVC's hashes of its models; as it is where DVC cannot be asked, which is told."""
    try:
        return replace(manifest, models=add_dvc_records(manifest.models, Path(manifest.exports)))
    except SyncError as error:
        report.is_behind = True
        report.lines.append(f"the release has no DVC hashes, and cannot be checked out: {error}")
        return manifest


def _render(manifest: Manifest, earlier: Sequence[Manifest]) -> dict[str, str]:
    """The release's pages by the names of their files."""
    # Imported only where there is something new to write.
    from registry_sync.release_bom import render_bom
    from registry_sync.release_page import describe_release, render_html, render_markdown

    page = describe_release(manifest, earlier)
    names = ReleaseDirectory(Path())
    return {
        names.notes.name: render_markdown(page),
        names.page.name: render_html(page),
        names.bom.name: render_bom(manifest),
    }


def _find_run(run: RunDirectory) -> str:
    """The batch's run in MLflow; empty where nothing was due, so that it has none."""
    try:
        data = read_json(run.mlflow_marker)
    except (OSError, DataError):
        return ""
    return str(data.get("run_id", "")) if isinstance(data, dict) else ""


def _describe_verdict(manifest: Manifest) -> Iterator[str]:
    refused = [model for model in manifest.models if not model.verdict.is_good]
    for model in refused[:_MAX_REFUSED]:
        if model.failure is not None:
            why = f"{model.failure_history} failure, {model.failure.kind} ({model.failure.fingerprint})"
        else:
            exceeded = [
                f"{one.what} {one.before} -> {one.after}: {one.exceeded}" for one in model.changes if one.exceeded
            ]
            why = "; ".join(exceeded)
        yield f"  {model.id}: {model.verdict.words}: {why}"
    if len(refused) > _MAX_REFUSED:
        yield f"  and {len(refused) - _MAX_REFUSED} more"
