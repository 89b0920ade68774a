"""The versions that decide the bytes of an export."""

import platform
from importlib import metadata

import onnx
import onnxruntime
import torch

from exporter.versions import library_versions


def test_the_versions_are_those_of_the_libraries_that_are_imported():
    versions = library_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["onnx"] == onnx.__version__
    assert versions["onnxruntime"] == onnxruntime.__version__
    assert set(versions) == {"python", "modelpress", "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime"}
    assert all(versions.values())


def test_onnx_runtimes_build_for_gpus_counts_as_onnx_runtime(monkeypatch):
    def version(name):
        if name == "onnxruntime-gpu":
            return "1.32.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    # The function itself: what is cached is of the real ones.
    versions = library_versions.__wrapped__()
    assert versions["onnxruntime"] == "1.32.0"
    assert versions["onnx"] == ""
