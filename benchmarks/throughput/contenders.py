"""Who takes part in the throughput benchmark, and with which commands; each does its list of models once a round."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.throughput.measurement import Measurement, measure
from benchmarks.throughput.models import BATCH, IMAGE_SIZE, SEQ, BenchmarkModel

__all__ = ["Contender", "Record", "bare_loop", "cold_scripts", "olive", "optimum", "pipeline", "run_contender"]

_ROOT = Path(__file__).resolve().parents[2]
_LOG = "log.txt"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to export a list of models."""

    key: str
    label: str
    models: Sequence[BenchmarkModel]
    # Run one after the other in an empty folder; they leave a file `model.onnx` for each model.
    commands: Sequence[Sequence[str]]
    # Where these files are, by the model's name.
    find_model: Callable[[str], str] = "{}/model.onnx".format
    environment: Mapping[str, str] = field(default_factory=dict)
    # Reads the CPU time that the exports themselves took, in seconds, from that folder.
    read_own_cpu_s: Callable[[Path], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one contender took in one round."""

    contender: str
    round: int
    num_exports: int
    wall_s: float
    cpu_s: float
    # Of the CPU time, what the exports themselves took; None where they do not say.
    own_cpu_s: float | None = None
    peak_bytes: int | None = None
    # Of each command, in order.
    command_wall_s: list[float] = field(default_factory=list)
    # Not empty: what went wrong; then the numbers mean nothing.
    failure: str = ""


def cold_scripts(models: Sequence[BenchmarkModel]) -> Contender:
    """One fresh process of the bare script for each model."""
    return Contender(
        key="a",
        label="bare script, a cold process per export",
        models=models,
        commands=[_python("benchmarks.throughput.bare", ".", model.name) for model in models],
        environment=_ours(),
    )


def bare_loop(models: Sequence[BenchmarkModel]) -> Contender:
    """One process of the bare script for all models."""
    return Contender(
        key="b",
        label="bare script, a loop in one process",
        models=models,
        commands=[_python("benchmarks.throughput.bare", ".", *_names(models))],
        environment=_ours(),
    )


def pipeline(key: str, models: Sequence[BenchmarkModel], configs: Path, workers: int) -> Contender:
    """The pipeline's own command, without trackers."""
    swept = f"+model={','.join(_names(models))}"
    return Contender(
        key=key,
        label=f"python -m pipeline, {workers} worker{'s' if workers > 1 else ''}",
        models=models,
        commands=[
            _python(
                "pipeline", "--config-dir", str(configs), "-m", swept, "tracking=off", f"executor.workers={workers}"
            )
        ],
        find_model="exports/{}/model.onnx".format,
        environment=_ours(),
        read_own_cpu_s=_read_results,
    )


def optimum(program: str, models: Sequence[BenchmarkModel], checkpoints: Path) -> Contender:
    """The command line of optimum, a process per export; it exports with TorchScript and compares once."""
    shapes = {"batch_size": BATCH, "sequence_length": SEQ, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
    options = [part for name, size in shapes.items() for part in (f"--{name}", str(size))]
    return Contender(
        key="d",
        label="optimum-cli export onnx (TorchScript)",
        models=models,
        commands=[
            [program, "export", "onnx", "-m", str(checkpoints / model.name), "--task", model.task, *options, model.name]
            for model in models
        ],
    )


def olive(program: str, models: Sequence[BenchmarkModel], checkpoints: Path) -> Contender:
    """The command line of Olive, a process per export; it exports with dynamo and compares nothing."""
    return Contender(
        key="e",
        label="olive capture-onnx-graph (dynamo)",
        models=models,
        commands=[
            [
                *(program, "capture-onnx-graph", "-m", str(checkpoints / model.name), "--task", model.task),
                *("--use_dynamo_exporter", "--disable_telemetry", "-o", model.name),
            ]
            for model in models
        ],
        # Else it sends a heartbeat whatever its own switches say, and without a network tries again for nine seconds.
        environment={"CI": "1"},
    )


def run_contender(
    contender: Contender, number: int, folder: Path, *, threads: int, time_limit_s: float, with_memory: bool = False
) -> Record:
    """Run a contender's commands in a folder of its own, which is gone afterwards.

    Args:
        contender: Who.
        number: Of the round.
        folder: Created here.
        threads: Of torch, where the contender does not set them itself.
        time_limit_s: For each command.
        with_memory: Read memory too; the times of such a round are not to be compared.
    """
    folder.mkdir(parents=True)
    environment = _environment(contender.environment, threads)
    done: list[Measurement] = []
    failure = ""
    for command in contender.commands:
        done.append(
            measure(
                command,
                cwd=folder,
                environment=environment,
                log=folder / _LOG,
                time_limit_s=time_limit_s,
                with_memory=with_memory,
            )
        )
        if failure := done[-1].failure:
            break
    missing = [model.name for model in contender.models if not (folder / contender.find_model(model.name)).is_file()]
    if missing and not failure:
        failure = f"no file for {', '.join(missing)}"
    own_cpu_s = None if failure or contender.read_own_cpu_s is None else contender.read_own_cpu_s(folder)
    shutil.rmtree(folder)
    return Record(
        contender=contender.key,
        round=number,
        num_exports=len(contender.models),
        wall_s=sum(item.wall_s for item in done),
        cpu_s=sum(item.cpu_s for item in done),
        own_cpu_s=own_cpu_s,
        peak_bytes=max((item.peak_bytes for item in done if item.peak_bytes is not None), default=None),
        command_wall_s=[item.wall_s for item in done],
        failure=failure,
    )


def _environment(changes: Mapping[str, str], threads: int) -> dict[str, str]:
    """Ours, without what would change another interpreter; nobody asks a hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HYDRA_", "OMP_"))}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    return {**kept, **offline, **changes}


def _ours() -> dict[str, str]:
    return {"PYTHONPATH": str(_ROOT)}


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _names(models: Sequence[BenchmarkModel]) -> list[str]:
    return [model.name for model in models]


def _read_results(folder: Path) -> float:
    results = [json.loads(path.read_text()) for path in folder.glob("exports/*/result.json")]
    return float(sum(result["cpu_s"] for result in results))
