"""The bytes on disk: the same each time, and no trace of where they were made."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import faulty_models
import numpy as np
import onnx
import onnxruntime
import pytest

import exporter
from exporter import ExportDirectory, Output
from exporter.build import build_module
from exporter.conductor import run_export
from exporter.directory import hash_parts
from exporter.files import write_json


def test_the_same_spec_gives_the_same_bytes_in_another_directory(perceptron, tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 16])})
    again = ExportDirectory(tmp_path / "a much longer path" / "again")
    result = run_export(spec, again.path, threads=1)
    assert again.model.read_bytes() == perceptron.directory.model.read_bytes()
    assert again.model_data.read_bytes() == perceptron.directory.model_data.read_bytes()
    assert result.files == perceptron.result.files


def test_another_process_with_another_hash_seed_gives_the_same_bytes(perceptron, tmp_path):
    code = """
import pathlib, sys, exporter
export_directory = exporter.ExportDirectory(pathlib.Path(sys.argv[1]))
exporter.conductor.run_export(export_directory.read_spec(), sys.argv[2], threads=1)
"""
    root, tests = Path(exporter.__file__).parents[1], Path(faulty_models.__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": os.pathsep.join((str(root), str(tests)))}
    command = [sys.executable, "-c", code, str(perceptron.directory.path), str(tmp_path / "out")]
    # From another directory, too.
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert ExportDirectory(tmp_path / "out").record_files() == perceptron.result.files


def test_another_seed_gives_other_bytes(perceptron, tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 16])}, seed=1)
    again = ExportDirectory(tmp_path)
    run_export(spec, tmp_path, build_module(spec.model), threads=1)
    assert again.model_data.read_bytes() != perceptron.directory.model_data.read_bytes()


@pytest.mark.parametrize(
    "trace",
    [
        str(Path(faulty_models.__file__).parent),
        str(Path.home()),
        "faulty_models",
        "site-packages",
        "Perceptron",
        ".py",
        "torch.relu(self.linear(x))",
        "pkg.torch",
        "/tmp",
    ],
)
def test_the_graph_has_no_trace_of_the_machine_or_the_source(perceptron, trace):
    content = perceptron.directory.model.read_bytes()
    assert trace.encode() not in content
    assert str(perceptron.directory.path).encode() not in content


def test_the_graph_has_no_metadata_but_its_name_and_version(perceptron):
    model = onnx.load(perceptron.directory.model, load_external_data=False)
    graph = model.graph
    assert {item.key: item.value for item in model.metadata_props} == {
        "modelpress.name": "tiny",
        "modelpress.version": metadata.version("modelpress"),
    }
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        assert (part.doc_string, list(part.metadata_props)) == ("", [])
    assert model.producer_name == "pytorch"


def test_the_data_file_is_named_without_a_directory(perceptron):
    model = onnx.load(perceptron.directory.model, load_external_data=False)
    places = [
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    ]
    assert set(places) == {"model.onnx.data"}


def test_both_files_may_be_read_by_anyone(perceptron):
    for path in (perceptron.directory.model, perceptron.directory.model_data):
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_graph_names_the_fingerprint_that_a_batch_took(tmp_path):
    directory = ExportDirectory(tmp_path)
    write_json(directory.fingerprint, {"spec.id": "tiny"})
    result = run_export(faulty_models.make_spec(), tmp_path, threads=1)
    properties = {item.key: item.value for item in onnx.load(directory.model).metadata_props}
    assert properties["modelpress.fingerprint"] == hash_parts({"spec.id": "tiny"}) == result.provenance.fingerprint


def test_the_debug_copy_has_the_trace_and_shares_the_weights(perceptron, tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 16])}, debug_metadata=True)
    directory = ExportDirectory(tmp_path)
    result = run_export(spec, tmp_path, threads=1)
    assert result.failure is None
    # What ships is the same with it and without.
    assert directory.model.read_bytes() == perceptron.directory.model.read_bytes()
    assert [file.path for file in result.files] == ["model.onnx", "model.onnx.data", "model.debug.onnx"]
    debug, plain = onnx.load(directory.model_debug, load_external_data=False), onnx.load(directory.model)
    assert [node.name for node in debug.graph.node] == [node.name for node in plain.graph.node]
    notes = {item.key: item.value for item in debug.graph.node[-1].metadata_props}
    assert "torch.relu(self.linear(x))" in notes["pkg.torch.onnx.stack_trace"]
    places = {
        entry.value for item in debug.graph.initializer for entry in item.external_data if entry.key == "location"
    }
    assert places == {"model.onnx.data"}
    one, two = (onnxruntime.InferenceSession(path) for path in (directory.model, directory.model_debug))
    feeds = {"x": np.ones((2, 8), np.float32)}
    assert np.array_equal(one.run(None, feeds)[0], two.run(None, feeds)[0])
    assert not perceptron.directory.model_debug.exists()
