"""Copies of a saved model under another name; the graph names its data file, so a plain copy would not do."""

import shutil
from pathlib import Path

import onnx

from exporter.directory import ExportDirectory
from exporter.subgraphs import all_graphs

__all__ = ["copy_model"]


def copy_model(source: ExportDirectory, path: Path) -> None:
    """Copy a model to `path`, and its data file to `path` with `.data` at the end; both replace what is there.

    The data file has the same bytes under every name. The graph has the same bytes under its own name, and differs in
    the data file's name under others. Nothing of the weights is loaded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(source.model):
        return
    data = path.with_name(f"{path.name}.data")
    if source.model_data.exists():
        _replace(data, source.model_data)
    else:
        data.unlink(missing_ok=True)
    if path.name == source.model.name:
        _replace(path, source.model)
    else:
        temporary = _aside(path)
        temporary.write_bytes(_refer_to(source.model, data.name))
        temporary.replace(path)


def _replace(path: Path, source: Path) -> None:
    temporary = _aside(path)
    shutil.copyfile(source, temporary)
    temporary.replace(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _refer_to(path: Path, data: str) -> bytes:
    """A graph's bytes, with its tensors in a data file of another name."""
    model = onnx.load(path, load_external_data=False)
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data
    return bytes(model.SerializeToString(deterministic=True))
