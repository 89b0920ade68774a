"""How many exports a minute: the pipeline against a bare script, optimum's and Olive's command lines.

`python -m benchmarks.throughput OUT_DIR` runs the same models through all contenders in turns, round by round, and
writes the medians as a table (throughput.md, also on stdout), all measurements (throughput.json) and a figure
(throughput.png, throughput.svg). Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.throughput.contenders import (
    Contender,
    Record,
    bare_loop,
    cold_scripts,
    olive,
    optimum,
    pipeline,
    run_contender,
)
from benchmarks.throughput.figure import draw
from benchmarks.throughput.models import MODELS, choose_models, write_configs
from benchmarks.throughput.table import render_table, render_targets, summarize

_ROOT = Path(__file__).resolve().parents[2]
_KEYS = ("a", "b", "c1", "c2", "c2w", "c2t", "d", "e")


def main() -> None:
    """Run all rounds; write and print what came out."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        contenders = gather(options, Path(name))
        records = compete(contenders, options, Path(name))
    summaries = summarize(contenders, records)
    lines = [machine, "", *render_table(contenders, records, summaries), "", *render_targets(summaries)]
    (options.out / "throughput.md").write_text("\n".join([*lines, ""]))
    (options.out / "throughput.json").write_text(
        json.dumps({"machine": machine, "records": [asdict(record) for record in records]}, indent=1)
    )
    print("\n".join(lines))
    if summaries:
        draw(list(summaries.values()), options.out / "throughput")


def parse() -> argparse.Namespace:
    """The command line; argparse ends the process where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=__doc__.partition("\n\n")[0] if __doc__ else None
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the results go; created if missing")
    parser.add_argument("--rounds", type=int, default=2, help="of each contender (default: %(default)s)")
    parser.add_argument("--contenders", nargs="+", choices=_KEYS, default=list(_KEYS), help="(default: all)")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=[model.name for model in MODELS],
        default=[model.name for model in MODELS],
        help="(default: all)",
    )
    parser.add_argument("--optimum", metavar="PATH", help="of optimum-cli, where it is not on PATH")
    parser.add_argument("--olive", metavar="PATH", help="of olive, where it is not on PATH")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each process (default: %(default)s)")
    parser.add_argument("--memory", action="store_true", help="one more round, first, that reads memory")
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S", help="for each command")
    parser.add_argument("--folder", type=Path, help="where the exports go for as long as they are needed")
    return parser.parse_args()


def gather(options: argparse.Namespace, folder: Path) -> list[Contender]:
    """Who takes part, with configs and checkpoints written for them; says who does not and why."""
    models = choose_models(options.models)
    transformers = [model for model in models if model.task]
    configs, checkpoints = folder / "configs", folder / "checkpoints"
    # What a larger batch makes of the fixed part of the pipeline's own time.
    twice = [*models, *(replace(model, name=f"{model.name}_again") for model in models)]
    write_configs(twice, configs)
    contenders = [
        cold_scripts(models),
        bare_loop(models),
        *(pipeline(f"c{workers}", models, configs, workers) for workers in (1, 2)),
        pipeline("c2w", twice, configs, 2),
    ]
    if transformers:
        contenders.append(pipeline("c2t", transformers, configs, 2))
        programs = {
            "d": (optimum, options.optimum or shutil.which("optimum-cli")),
            "e": (olive, options.olive or shutil.which("olive")),
        }
        for key, (make, program) in programs.items():
            if program is not None:
                contenders.append(make(str(Path(program).absolute()), transformers, checkpoints))
            elif key in options.contenders:
                say(f"({key}) is left out: its program is not on PATH; give it with --{make.__name__} PATH")
    chosen = [contender for contender in contenders if contender.key in options.contenders]
    if any(contender.key in ("d", "e") for contender in chosen):
        names = [model.name for model in transformers]
        command = [sys.executable, "-m", "benchmarks.throughput.checkpoints", str(checkpoints), *names]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        made = subprocess.run(command, cwd=_ROOT, check=False, env=environment, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"{made.stderr}the checkpoints for (d) and (e) could not be written")
    return chosen


def compete(contenders: Sequence[Contender], options: argparse.Namespace, folder: Path) -> list[Record]:
    """All rounds, the contenders in turns; one that fails is out."""
    records: list[Record] = []
    failed: set[str] = set()
    for number in range(0 if options.memory else 1, options.rounds + 1):
        for contender in contenders:
            if contender.key in failed:
                continue
            record = run_contender(
                contender,
                number,
                folder / f"{number}-{contender.key}",
                threads=options.threads,
                time_limit_s=options.time_limit,
                with_memory=number == 0,
            )
            records.append(record)
            if record.failure:
                failed.add(contender.key)
            took = record.failure or f"{record.wall_s:.1f} s, CPU {record.cpu_s:.1f} s"
            say(f"round {number}, ({contender.key}) {contender.label}: {took}")
    return records


def describe_machine(threads: int) -> str:
    """One line on what this ran on, when, and how busy that was before."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    processor = found[1].strip() if found else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime", "transformers"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {len(os.sched_getaffinity(0))} cores ({processor}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, load {os.getloadavg()[0]:.1f} before; "
        f"Python {platform.python_version()}, {versions}; OMP_NUM_THREADS={threads}."
    )


def say(line: str) -> None:
    """To stderr, for who watches; stdout is the table's."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
