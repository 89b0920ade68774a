"""What an export needs of memory: the dynamo exporter, the TorchScript exporter and the model itself, over time.

Reproduces on the CPU what the PyTorch documentation shows on a GPU
(https://docs.pytorch.org/docs/stable/onnx_dynamo_memory_usage.html): `python -m benchmarks.memory OUT_DIR`. Each way
has a fresh process; the table goes to stdout, and the curves to OUT_DIR as PNG and SVG.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.memory_figure import draw
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.probe import Probe, Way, run_probe
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName

DEFAULT_INPUTS = ("30x1x48x48x48", "1x1x96x96x96")


def main() -> None:
    """Run every way on every input, print the table, draw the figures."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        "| input | way | peak above imports, MiB | of TorchScript's | anonymous, MiB | time, s |\n" + "|---" * 6 + "|"
    )
    for size in options.input or DEFAULT_INPUTS:
        probes = {way: measure(options, size, way) for way in map(Way, options.ways)}
        print("\n".join(rows(size, probes)), flush=True)
        draw(f"{options.model.rpartition('.')[2]}, input {size}", probes, options.out / f"memory-{size}")


def parse() -> argparse.Namespace:
    """The command line; argparse ends the process where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.partition("\n\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the figures go; created if missing")
    parser.add_argument(
        "--model",
        default="exporter.zoo.highresnet.HighResNet",
        help="dotted path of a module's class, built without arguments; its forward takes one float32 tensor",
    )
    parser.add_argument("--argument", default="volume", help="what forward calls that tensor (default: %(default)s)")
    parser.add_argument(
        "--input",
        action="append",
        metavar="SIZE",
        help=f"the tensor's sizes with x between; may be given again (default: {' and '.join(DEFAULT_INPUTS)})",
    )
    parser.add_argument("--ways", nargs="+", choices=list(map(str, Way)), default=list(map(str, Way)))
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S", help="for each process")
    return parser.parse_args()


def measure(options: argparse.Namespace, size: str, way: Way) -> Probe:
    """Run one process on a spec that is made here, in a folder that is gone afterwards."""
    spec = ExportSpec(
        id="memory",
        model=ModelSpec(
            name="memory",
            source={"_target_": options.model},
            inputs={options.argument: Input([int(number) for number in size.split("x")])},
        ),
        precision=Precision(PrecisionName.fp32, 1e-4, 1e-5),
    )
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        write_json(ExportDirectory(Path(folder)).spec, spec)
        return run_probe(Path(folder), way, Path(folder), threads=options.threads, time_limit_s=options.time_limit)


def rows(size: str, probes: dict[Way, Probe]) -> list[str]:
    """A line of the table for each way."""
    yardstick = probes[Way.torchscript].record.peak_bytes if Way.torchscript in probes else 0
    lines = []
    for way, probe in probes.items():
        if probe.record.reason:
            lines.append(f"| {size} | {way} | {probe.record.reason} | | | |")
            continue
        share = f"{probe.record.peak_bytes / yardstick:.1%}" if yardstick else "-"
        cells = (size, way, mebibytes(probe.record.peak_bytes), share, mebibytes(probe.anon_bytes))
        lines.append(f"| {' | '.join(cells)} | {probe.record.duration_s:.1f} |")
    return lines


def mebibytes(number: int) -> str:
    """Bytes as a whole number of MiB."""
    return f"{number / 2**20:,.0f}"


if __name__ == "__main__":
    main()
