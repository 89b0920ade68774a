"""The bytes on disk: the same each time, and no trace of where they were made."""

import os
import subprocess
import sys
from pathlib import Path

import faulty_models
import onnx
import pytest

import exporter
from exporter import ExportDirectory, Output, export
from exporter.build import build_module


def test_the_same_spec_gives_the_same_bytes_in_another_directory(perceptron, tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 16])})
    again = ExportDirectory(tmp_path / "a much longer path" / "again")
    result = export(spec, again.path, threads=1)
    assert again.model.read_bytes() == perceptron.directory.model.read_bytes()
    assert again.model_data.read_bytes() == perceptron.directory.model_data.read_bytes()
    assert result.files == perceptron.result.files


def test_another_process_with_another_hash_seed_gives_the_same_bytes(perceptron, tmp_path):
    code = """
import pathlib, sys, exporter
export_directory = exporter.ExportDirectory(pathlib.Path(sys.argv[1]))
exporter.export(export_directory.read_spec(), sys.argv[2], threads=1)
"""
    root, tests = Path(exporter.__file__).parents[1], Path(faulty_models.__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": os.pathsep.join((str(root), str(tests)))}
    command = [sys.executable, "-c", code, str(perceptron.directory.path), str(tmp_path / "out")]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert ExportDirectory(tmp_path / "out").record_files() == perceptron.result.files


def test_another_seed_gives_other_bytes(perceptron, tmp_path):
    spec = faulty_models.make_spec(outputs={"y": Output(shape=["n", 16])}, seed=1)
    again = ExportDirectory(tmp_path)
    export(spec, tmp_path, build_module(spec.model), threads=1)
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


def test_the_graph_has_no_metadata(perceptron):
    model = onnx.load(perceptron.directory.model, load_external_data=False)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
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
