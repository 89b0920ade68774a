"""Published exports with a real ONNX graph in them, written by onnx itself, in no time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from batch_data import make_run, make_spec
from onnx import TensorProto, helper, numpy_helper

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.result import TensorRecord
from registry_sync.record import RunDirectory

# Several inputs of several dtypes, of no axis, of one and of two.
INPUTS = [
    TensorRecord(name="features", dtype="float32", shape=["batch", 4]),
    TensorRecord(name="scale", dtype="float32", shape=[]),
    TensorRecord(name="ids.0", dtype="int64", shape=["batch"]),
    TensorRecord(name="keep", dtype="bool", shape=["batch"]),
    TensorRecord(name="half", dtype="float16", shape=["batch", 2]),
]
OUTPUTS = [
    TensorRecord(name="scores", dtype="float32", shape=["batch", 3]),
    TensorRecord(name="next.0", dtype="int64", shape=["batch"]),
    TensorRecord(name="dropped", dtype="bool", shape=["batch"]),
    TensorRecord(name="square", dtype="float16", shape=["batch", 2]),
]
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
_TYPES["float16"] = TensorProto.FLOAT16
_TYPES["bfloat16"] = TensorProto.BFLOAT16
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def make_feeds() -> dict[str, np.ndarray]:
    return {
        "features": np.array([[1, 2, 3, 4], [0.5, 0, -1, 2]], np.float32),
        "scale": np.array(0.5, np.float32),
        "ids.0": np.array([2**40, -7], np.int64),
        "keep": np.array([True, False]),
        "half": np.array([[0.5, 2], [3, -4]], np.float16),
    }


def expect(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "scores": feeds["features"] @ WEIGHT * feeds["scale"],
        "next.0": feeds["ids.0"] + 1,
        "dropped": ~feeds["keep"],
        "square": feeds["half"] * feeds["half"],
    }


def write_model(path: Path) -> None:
    """As torch's exporter saves it: model.onnx, and initializers in model.onnx.data."""
    nodes = [
        helper.make_node("MatMul", ["features", "weight"], ["product"]),
        helper.make_node("Mul", ["product", "scale"], ["scores"]),
        helper.make_node("Add", ["ids.0", "one"], ["next.0"]),
        helper.make_node("Not", ["keep"], ["dropped"]),
        helper.make_node("Mul", ["half", "half"], ["square"]),
    ]
    initializers = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
    ]
    graph = helper.make_graph(nodes, "g", [_describe(t) for t in INPUTS], [_describe(t) for t in OUTPUTS], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)


def make_onnx_run(root: Path, **findings: object) -> RunDirectory:
    """A batch as `make_run` makes it, whose export `good` is the model above; findings go into its result."""
    run = make_run(root)
    directory = ExportDirectory(root / "exports/good")
    write_model(directory.model)
    record_export(root, run, directory, **findings)
    return run


def record_export(root: Path, run: RunDirectory, directory: ExportDirectory, **findings: object) -> None:
    """Write result.json for what lies in the directory of `good`, and the batch's copy of it."""
    known = {"inputs": INPUTS, "outputs": OUTPUTS, "ort_providers": ["CPUExecutionProvider"]}
    result = describe_result(make_spec("good"), None, 1_767_225_600.0, files=directory.record_files(), **known)
    result = replace(result, **findings)
    write_result(directory, result)
    write_json(root / run.result("good"), result)


def _describe(tensor: TensorRecord) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)
