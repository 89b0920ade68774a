"""Memory of an export whose weights stay in their file, beside one that loads them.

Run from the repository: `python -m benchmarks.weights [--mebibytes 2048] [--folder DIR]`. A safetensors file of Linear
layers is made in a temporary folder (three times its size is needed there), and each case runs in a fresh process.
Prints the table of benchmarks/README.md. Memory is read from /proc every 5 ms, above what the process had before
the first step; `total` counts pages of mapped files, which the kernel takes back when it needs them, `anonymous`
does not.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_WIDTH = 8192
_LAYER_BYTES = _WIDTH * (_WIDTH + 1) * 4
_EXPORT = ("build", "capture", "optimize", "save")


def main() -> None:
    """Make the weights, run each case, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mebibytes", type=int, default=2048)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options.folder, **json.loads(options.case))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        depth = max(1, round(options.mebibytes * 2**20 / _LAYER_BYTES))
        make_weights(Path(folder), depth)
        size = (Path(folder) / "weights.safetensors").stat().st_size
        print(
            f"{depth} Linear({_WIDTH}, {_WIDTH}), {size / 2**20:.0f} MiB of float32 weights; MiB above the baseline\n"
        )
        print("| inputs | weights | build to save, total | anonymous | s | parity, total | anonymous | s |")
        print("|---|---|---|---|---|---|---|---|")
        for axes in (2, 3):
            for stream in (True, False):
                print_row(folder, {"axes": axes, "stream": stream, "depth": depth})


def make_weights(folder: Path, depth: int) -> None:
    """In a process of its own, so that this one stays small."""
    code = (
        "import sys, torch; from safetensors.torch import save_file; w, d = int(sys.argv[2]), int(sys.argv[3]); "
        "t = {f'{i}.weight': torch.empty(w, w).normal_(0, w**-0.5) for i in range(d)}; "
        "t |= {f'{i}.bias': torch.randn(w) for i in range(d)}; save_file(t, sys.argv[1])"
    )
    arguments = [str(folder / "weights.safetensors"), str(_WIDTH), str(depth)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def print_row(folder: str, case: dict[str, Any]) -> None:
    """Run a case in a fresh process and print its line of the table."""
    command = [sys.executable, "-m", "benchmarks.weights", "--folder", folder, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    cells = [found[part][key] for part in ("export", "parity") for key in ("total", "anonymous", "s")]
    print(f"| {case['axes']}-D | {found['mode']} | {' | '.join(f'{cell:.0f}' for cell in cells)} |", flush=True)


def run_case(folder: Path, *, axes: int, stream: bool, depth: int) -> dict[str, Any]:
    """One export, its memory watched from a thread."""
    from exporter import Dim, ExportOptions, ExportSpec, Input, ModelSpec, Precision, PrecisionName
    from exporter import sequence as _imports
    from exporter.conductor import run_export

    del _imports
    layer = {"_target_": "torch.nn.Linear", "in_features": _WIDTH, "out_features": _WIDTH}
    spec = ExportSpec(
        id="linears",
        model=ModelSpec(
            name="linears",
            source={"_target_": "torch.nn.Sequential", "_args_": [layer] * depth},
            dims={"batch": Dim(min=1, max=8, example=4)},
            inputs={"input": Input(shape=["batch", *[3] * (axes - 2), _WIDTH])},
            weights=str(folder / "weights.safetensors"),
        ),
        precision=Precision(name=PrecisionName.fp32, rtol=1e-3, atol=1e-3),
        export=ExportOptions(stream_weights=stream),
    )
    watch = Watch()
    result = run_export(spec, folder / "export", threads=2, on_step=watch.begin)
    watch.end()
    if result.failure is not None or result.weights is None:
        raise SystemExit(str(result.failure))
    seconds = {str(record.step): record.duration_s for record in result.steps}
    return {
        "mode": str(result.weights.mode),
        "export": {**watch.peak(*_EXPORT), "s": sum(seconds[step] for step in _EXPORT)},
        "parity": {**watch.peak("parity"), "s": seconds["parity"]},
    }


class Watch:
    """Reads this process's memory until it is ended, step by step."""

    def __init__(self) -> None:
        self._base = read_memory()
        self._peaks: dict[str, dict[str, int]] = {}
        self._step = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def begin(self, step: str) -> None:
        self._step = str(step)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def peak(self, *steps: str) -> dict[str, float]:
        """The highest of each kind over the given steps, in MiB above the baseline."""
        return {
            key: max(self._peaks.get(step, base).get(key, 0) for step in steps) / 1024 - base[key] / 1024
            for base in (self._base,)
            for key in base
        }

    def _read(self) -> None:
        while not self._ended.is_set():
            now = read_memory()
            peaks = self._peaks.setdefault(self._step, now)
            self._peaks[self._step] = {key: max(value, now[key]) for key, value in peaks.items()}
            time.sleep(0.005)


def read_memory() -> dict[str, int]:
    """Resident memory of this process in KiB: all of it, and what no file backs."""
    status = Path("/proc/self/status").read_text()
    found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.MULTILINE))
    return {"total": int(found["VmRSS"]), "anonymous": int(found["RssAnon"])}


if __name__ == "__main__":
    main()
