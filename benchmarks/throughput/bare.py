"""What a user would write without modelpress, for a list of models: the yardstick of the throughput benchmark.

`python -m benchmarks.throughput.bare OUT_DIR NAME [NAME ...]` exports the named models one after the other in this
process. For each it does what PyTorch's documentation shows and the least proof that anyone would do: build the model,
export with dynamo and dynamic shapes (torch optimizes the graph by default), save with external data, run onnx.checker,
compare one run in ONNX Runtime with PyTorch's on the example. One process for all is the bare loop; one process for
each is the cold script.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from benchmarks.throughput.models import BenchmarkModel, choose_models


def main() -> None:
    """Export what the command line names."""
    out = Path(sys.argv[1])
    for model in choose_models(sys.argv[2:]):
        start, cpu = time.perf_counter(), time.process_time()
        export(model, out / model.name)
        record = {"model": model.name, "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
        print(json.dumps(record), flush=True)


def export(model: BenchmarkModel, folder: Path) -> None:
    """From the module's class to a file that was compared once."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    module = build(model.source).eval()
    inputs = {name: make_input(model, name) for name in model.inputs}
    program = torch.onnx.export(
        module,
        (),
        kwargs=inputs,
        dynamo=True,
        verbose=False,
        dynamic_shapes={name: model.dynamic_axes(name) for name in inputs},
    )
    assert program is not None
    path = folder / "model.onnx"
    program.save(path, external_data=True)
    onnx.checker.check_model(path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(module(**inputs))  # noqa: SLF001
    for wanted, found in zip(expected, actual, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


def build(node: Any) -> Any:
    """A tree of `_target_`s as the object that it describes."""
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: build(value) for name, value in node.items() if name not in ("_target_", "_args_")}
    if "_target_" not in node:
        return made
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(*build(node.get("_args_", [])), **made)


def make_input(model: BenchmarkModel, name: str) -> torch.Tensor:
    """The example's tensor of one input."""
    item = model.inputs[name]
    if item.get("dtype", "float32") == "float32":
        return torch.randn(model.sizes(name))
    fill = item["fill"]
    return (
        torch.randint(fill["high"], model.sizes(name))
        if fill["kind"] == "randint"
        else torch.ones(model.sizes(name), dtype=torch.int64)
    )


if __name__ == "__main__":
    main()
