"""What a batch is compared with: a release with the releases before it, any other with the last batch of its name.

A release's page is written before the release itself is, and perhaps once more long after it, when an old batch is
logged to MLflow at last. So only releases that had been made when the batch began count, whatever lies on the disk.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from exporter.errors import FailureKind
from exporter.plain_data import DataError
from registry_sync.changes import Baseline, Reading, find_earlier_batch
from registry_sync.record import BatchRecord, Outcome, RunDirectory
from registry_sync.release_manifest import RELEASES, Manifest, ReleaseDirectory, ReleasedModel, Verdict

__all__ = ["find_accepted", "find_baseline"]

# To read one takes some milliseconds; further back the page of a release tells no more of a failure either.
_MAX_RELEASES = 30
_PEEKED = 1000


def find_baseline(run: RunDirectory, record: BatchRecord, root: Path = RELEASES) -> Baseline | None:
    """The last release before a batch that is one; the last batch of its name where there is none, or it is none.

    Args:
        run: Of the batch; others' directories lie beside it.
        record: Of the batch.
        root: Where releases are.
    """
    earlier: list[Manifest] = []
    for manifest in islice(_read_newest_first(record, root), _MAX_RELEASES):
        earlier.insert(0, manifest)
        if all(find_accepted(export.id, earlier) for export in record.exports):
            break
    return _compare_with(earlier, record) if earlier else find_earlier_batch(run, record)


def find_accepted(export: str, earlier: Sequence[Manifest]) -> tuple[Manifest, ReleasedModel] | None:
    """The last release in which a model was accepted: one that was refused must not become the measure of the next.

    Args:
        export: Its id.
        earlier: Releases of one name, oldest first.
    """
    return next((found for found in _find_newest_first(export, earlier) if found[1].verdict is Verdict.accepted), None)


def _find_newest_first(export: str, earlier: Sequence[Manifest]) -> Iterator[tuple[Manifest, ReleasedModel]]:
    for manifest in reversed(earlier):
        if (model := manifest.find(export)) is not None:
            yield manifest, model


def _read_newest_first(record: BatchRecord, root: Path) -> Iterator[Manifest]:
    """The releases of the batch's name that were there when it began."""
    if record.release is None:
        return
    directories = map(ReleaseDirectory, root.glob(f"{glob.escape(record.release)}-*"))
    made = [(_peek_time(directory), directory) for directory in directories]
    for created_at, directory in sorted(made, key=lambda one: (one[0], one[1].path.name), reverse=True):
        # Both in UTC and written alike, so that text sorts as time does.
        if not created_at or created_at >= record.started_at:
            continue
        try:
            manifest = directory.read_manifest()
        except (OSError, DataError):
            # Who makes the next release is told; a page is there all the same, and names what it compares with.
            continue
        if manifest.name == record.release:
            yield manifest


def _peek_time(directory: ReleaseDirectory) -> str:
    """When a release was made, which stands at the beginning of its manifest; empty if it does not."""
    try:
        with directory.manifest.open(encoding="utf-8", errors="replace") as file:
            found = re.search(r'"created_at": "([^"]*)"', file.read(_PEEKED))
    except OSError:
        return ""
    return found[1] if found else ""


def _compare_with(earlier: Sequence[Manifest], record: BatchRecord) -> Baseline:
    readings, others = {}, {}
    for export in record.exports:
        # What was never accepted is still told from what is new.
        found = find_accepted(export.id, earlier) or next(_find_newest_first(export.id, earlier), None)
        if found is not None:
            manifest, model = found
            readings[export.id] = _read_model(model)
            if manifest is not earlier[-1]:
                others[export.id] = manifest.title
    return Baseline(title=f"release {earlier[-1].title}", exports=readings, others=others)


def _read_model(model: ReleasedModel) -> Reading:
    measured, parity = model.measured, model.parity
    return Reading(
        outcome=_read_outcome(model),
        max_abs_diff=parity.max_abs_diff,
        max_limit_share=parity.max_limit_share,
        max_noise_ratio=parity.max_noise_ratio,
        export_peak_bytes=measured.export_peak_bytes,
        size_bytes=measured.size_bytes or None,
        num_nodes=measured.num_nodes or None,
        duration_s=measured.duration_s or None,
        latency_s=measured.latency_s,
    )


def _read_outcome(model: ReleasedModel) -> Outcome:
    if model.failure is None:
        return Outcome.passed
    return Outcome.unproven if model.failure.kind is FailureKind.parity_unsupported else Outcome.failed
