"""Which files of an export go to its run: report, log, result, repro. Its model has a place of its own."""

from pathlib import Path

from exporter.directory import ExportDirectory
from registry_sync.record import ExportRecord, Outcome, RunDirectory
from registry_sync.tags import cut_text

__all__ = ["choose_files"]

_FILES_TAG = "modelpress.files"
_NOTE_TAG = "mlflow.note.content"
# Of the model of an export that failed, which is evidence; a larger one stays where it is, and a tag says so.
_MAX_FAILED_MODEL_BYTES = 64 * 2**20


def choose_files(run: RunDirectory, export: ExportRecord, *, is_there: bool) -> tuple[dict[str, Path], dict[str, str]]:
    """The files by their names among the run's artifacts, and tags that tell of them.

    Args:
        run: Of the batch.
        export: One that was carried out in it.
        is_there: Whether the export's directory still is the one that this batch made.
    """
    if not is_there:
        tag = "replaced by a later run before they were logged"
        path = run.result(export.id)
        return {path.name: path}, {_FILES_TAG: tag}
    directory = ExportDirectory(Path(export.directory))
    files = {str(path.relative_to(directory.path)): path for path in _list_files(directory.path)}
    left_out = [name for name, path in files.items() if path in directory.model_files and _stays(export, path)]
    tags = {}
    if left_out and export.outcome is not Outcome.passed:
        tags[_FILES_TAG] = f"not logged for their size: {', '.join(left_out)} in {export.directory}"
    if directory.report.is_file():
        tags[_NOTE_TAG] = cut_text(directory.report.read_text(encoding="utf-8"))
    return {name: path for name, path in files.items() if name not in left_out}, tags


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _stays(export: ExportRecord, path: Path) -> bool:
    return export.outcome is Outcome.passed or path.stat().st_size > _MAX_FAILED_MODEL_BYTES
