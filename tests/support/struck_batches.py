"""What has to hold after a batch of stub exports was struck by a fault of the disk, and after the next one.

exports/ holds whole, passed exports only; a run without the fault ends well, does no more than is unfinished, and
leaves no litter; each run has its summary, and in it each export once.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.result import Status
from registry_sync.metrics import collect_metrics
from registry_sync.record import RunDirectory

__all__ = ["NEW", "OLD", "list_unfinished", "read_exports", "require_convergence"]

# The opset versions of what was published before, and of what the struck run is to publish.
OLD, NEW = 18, 20


def read_exports(folder: Path) -> dict[str, int]:
    """The opset version of each export that is published, every one of which has to be whole."""
    found = {}
    for path in (folder / "exports").glob("*"):
        export = ExportDirectory(path)
        result = export.read_result()
        assert result.status is Status.passed
        assert result.files
        assert export.damaged_files(result) == []
        assert export.read_spec() == result.spec
        assert export.read_fingerprint()["spec.export.opset_version"] == str(result.spec.export.opset_version)
        found[path.name] = result.spec.export.opset_version
    return found


def list_unfinished(folder: Path) -> list[Path]:
    return [path for path in (folder / "runs").glob("*") if not (path / "summary.json").exists()]


def require_convergence(folder: Path, ids: Iterable[str], struck: dict[str, int], *, is_kill: bool) -> None:
    """See what a run without a fault has made of what one with a fault left.

    Args:
        folder: The working directory.
        ids: Of the exports that it had to bring up to date.
        struck: What `read_exports` found before.
        is_kill: The fault was a kill, or else an error.
    """
    assert read_exports(folder) == dict.fromkeys(ids, NEW)
    assert list_unfinished(folder) == []
    *earlier, last = sorted((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    record = RunDirectory(last).read_summary()
    assert record.exit_code == 0
    for export in record.exports:
        assert export.outcome.value == ("up_to_date" if struck.get(export.id) == NEW else "passed")
    published = {name for path in earlier for name in check_summary(RunDirectory(path), is_kill=is_kill)}
    told = {name for name in struck if struck[name] == NEW}
    # Where only the disk's last word is missing, a failure is told of what is published.
    assert published == told if is_kill else published <= told
    for name in ids:
        result = ExportDirectory(folder / "exports" / name).read_result()
        assert json.loads((folder / "metrics" / f"{name}.json").read_text()) == collect_metrics(result)
    hidden = {path.name for path in folder.rglob(".*")}
    assert hidden <= {".exports.lock"}, hidden


def check_summary(run: RunDirectory, *, is_kill: bool) -> set[str]:
    """Hold a run's summary against its files; returns the exports that it published in their newer form."""
    record = run.read_summary()
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    declared = next(event["exports"] for event in events if event["event"] == "batch_started")
    assert [export.id for export in record.exports] == declared
    published = set()
    for export in record.exports:
        work = run.export_directory(export.id)
        match export.outcome.value:
            case "passed":
                # An older export that the disk would not remove stays there.
                assert not (is_kill and work.exists())
                if run.read_result(export.id).spec.export.opset_version == NEW:
                    published.add(export.id)
            case "cancelled":
                assert not [path for path in ExportDirectory(work).model_files if path.exists()]
                assert not ExportDirectory(work).result.exists()
            case "failed":
                assert export.failure.kind.value == "storage_error"
    return published
