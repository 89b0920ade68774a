"""The last batch of a name as MLflow knows it, where its record is no longer on this disk: in a fresh checkout, say."""

from mlflow.entities import Run

from registry_sync.changes import Baseline, Reading
from registry_sync.record import BatchRecord, Outcome
from registry_sync.store import Store
from registry_sync.tags import RUN_ID_TAG

__all__ = ["find_earlier_runs"]

_KIND = "tags.`modelpress.kind`"


def find_earlier_runs(store: Store, record: BatchRecord) -> Baseline | None:
    """What the last batch of that name came to; exports that were up to date in it are missing."""
    if "'" in record.name:
        # The language of searches has no way to write it.
        return None
    condition = f"{_KIND} = 'batch' AND tags.`modelpress.batch` = '{record.name}'"
    found = store.call(
        store.client.search_runs,
        [store.experiment_id],
        condition,
        max_results=10,
        order_by=["attributes.start_time DESC"],
    )
    # Run ids begin with the time.
    earlier = [run.data.tags[RUN_ID_TAG] for run in found if run.data.tags.get(RUN_ID_TAG, "~") < record.run_id]
    if not earlier:
        return None
    run_id = max(earlier)
    condition = f"{_KIND} = 'export' AND tags.`{RUN_ID_TAG}` = '{run_id}'"
    children = store.call(store.client.search_runs, [store.experiment_id], condition)
    return Baseline(title=f"batch {run_id}", exports=dict(_read(child) for child in children))


def _read(child: Run) -> tuple[str, Reading]:
    metrics = child.data.metrics
    reading = Reading(
        outcome=Outcome(child.data.tags["modelpress.outcome"]),
        max_abs_diff=metrics.get("max_abs_diff"),
        max_limit_share=metrics.get("max_limit_share"),
        max_noise_ratio=metrics.get("max_noise_ratio"),
        export_peak_bytes=metrics.get("export_peak_bytes"),
        size_bytes=metrics.get("size_bytes"),
        num_nodes=metrics.get("num_nodes"),
        duration_s=metrics.get("duration_s"),
        latency_s=metrics.get("latency_s"),
    )
    return child.data.tags["modelpress.export"], reading
