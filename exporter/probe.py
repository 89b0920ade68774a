"""What an exporter needs of memory and time for a model, measured in a fresh process of its own.

The process imports, builds the model of a spec, exports it in one way and ends (`exporter.probe_process`); this side
starts it and samples it from outside. So ways can be compared that would disturb one another, or us, in one process.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from exporter.files import read_json
from exporter.plain_data import from_plain
from exporter.sampling import Sample, watch_process

__all__ = ["RECORD_FILE", "Probe", "ProbeRecord", "Way", "run_probe"]

RECORD_FILE = "probe.json"
_LOG_FILE = "probe.log"


class Way(StrEnum):
    """What a probe does with the model."""

    # Our capture, optimize and save: torch.onnx.export(dynamo=True).
    dynamo = "dynamo"
    # torch.onnx.export(dynamo=False), deprecated.
    torchscript = "torchscript"
    # One call of the model.
    eager = "eager"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecord:
    """What the process says of itself; all numbers are 0 where `reason` says why there are none."""

    reason: str = ""
    # Resident memory with torch, ONNX and the model's code imported, and no model yet; and its anonymous part.
    baseline_rss_bytes: int = 0
    baseline_anon_bytes: int = 0
    # Resident memory at its highest (VmHWM) while the model was exported, the model itself and its inputs included.
    peak_rss_bytes: int = 0
    # When the model was built and the export began, on time.monotonic().
    started_at_s: float = 0.0
    # From there until the file was written.
    duration_s: float = 0.0

    @property
    def peak_bytes(self) -> int:
        """The peak above the imports."""
        return max(0, self.peak_rss_bytes - self.baseline_rss_bytes)


@dataclass(frozen=True, slots=True)
class Probe:
    """What the process says of itself, and its memory over time, from its start to its end."""

    record: ProbeRecord
    samples: list[Sample]

    @property
    def anon_bytes(self) -> int:
        """Anonymous memory at its highest since the export began, above what it was just before the model was built."""
        during = [sample.usage.anon_bytes for sample in self.samples if sample.at_s >= self.record.started_at_s]
        return max(0, max(during, default=0) - self.record.baseline_anon_bytes)


def run_probe(directory: Path, way: Way, folder: Path, *, threads: int, time_limit_s: float) -> Probe:
    """Run one process to its end.

    Args:
        directory: Holds spec.json.
        way: What to do with the spec's model.
        folder: An empty one, for the files that the process writes; removing it is the caller's business.
        threads: Of torch.
        time_limit_s: The process is killed after so long.
    """
    # The interpreter puts these before its own, -P nothing else: what this process can import, the other can.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-P", "-m", "exporter.probe_process", str(directory), way.value, str(folder)]
    with (folder / _LOG_FILE).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own module)
            [*command, str(threads), str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            samples = watch_process(process, time_limit_s)
            has_ended = process.poll() is not None
        finally:
            process.kill()
            process.wait()
    if not has_ended:
        return Probe(ProbeRecord(reason=f"not done after {time_limit_s:g} s"), samples)
    return Probe(_read_record(folder, process.returncode), samples)


def _read_record(folder: Path, status: int) -> ProbeRecord:
    try:
        return from_plain(ProbeRecord, read_json(folder / RECORD_FILE))
    except FileNotFoundError:
        lines = (folder / _LOG_FILE).read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        return ProbeRecord(reason=f"the process ended with {ended}{': ' if last else ''}{last[:300]}")
