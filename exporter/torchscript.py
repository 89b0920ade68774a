"""The deprecated TorchScript exporter, as the yardstick of what the dynamo exporter needs of memory.

TorchScript runs the model to export it, and so needs all of its activations; dynamo traces it without data. Nothing
here has a part in the verdict: a model that TorchScript cannot export loses nothing.
"""

import logging
import tempfile
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.probe import ProbeRecord, Way, run_probe
from exporter.result import TorchScriptRecord

__all__ = ["compare_with_torchscript"]

log = logging.getLogger(__name__)

# For each of the two processes.
_TIME_LIMIT_S = 300.0


def compare_with_torchscript(
    directory: ExportDirectory, *, is_built: bool, threads: int, time_limit_s: float = _TIME_LIMIT_S
) -> TorchScriptRecord:
    """Export the model of a directory's spec.json by both exporters, each in a fresh process, one after the other.

    Args:
        directory: Has spec.json; what the two write goes into a folder in it that is gone afterwards.
        is_built: Whether the module was built from the spec. One that was handed over exists in this process alone.
        threads: Of torch.
        time_limit_s: For each of the two.
    """
    if not is_built:
        reason = "the module was handed over; a fresh process can only build one from model.source"
        return TorchScriptRecord(reason=reason)
    torchscript = _probe(directory, Way.torchscript, threads, time_limit_s)
    dynamo = _probe(directory, Way.dynamo, threads, time_limit_s)
    reasons = [
        f"{way}: {record.reason}" for way, record in (("TorchScript", torchscript), ("dynamo", dynamo)) if record.reason
    ]
    return TorchScriptRecord(
        peak_bytes=None if torchscript.reason else torchscript.peak_bytes,
        duration_s=None if torchscript.reason else torchscript.duration_s,
        dynamo_peak_bytes=None if dynamo.reason else dynamo.peak_bytes,
        dynamo_duration_s=None if dynamo.reason else dynamo.duration_s,
        reason="; ".join(reasons),
    )


def _probe(directory: ExportDirectory, way: Way, threads: int, time_limit_s: float) -> ProbeRecord:
    log.info("a fresh process exports by %s", way)
    try:
        # Not in /tmp, which may be memory: the file is as large as the model.
        with tempfile.TemporaryDirectory(prefix=f".{way}-", dir=directory.path) as folder:
            return run_probe(directory.path, way, Path(folder), threads=threads, time_limit_s=time_limit_s).record
    except OSError as error:
        return ProbeRecord(reason=f"{type(error).__name__}: {error}")
