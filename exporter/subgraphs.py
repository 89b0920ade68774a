"""Walks the graphs of an ONNX file: the bodies of If, Loop and Scan are graphs within a graph."""

from collections.abc import Iterator

import onnx

__all__ = ["all_graphs", "graphs_of"]


def all_graphs(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph or function itself, then those within its nodes, however deep."""
    yield body
    for node in body.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from all_graphs(inner)


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """All graphs of a model, and its functions, with the graphs in their nodes."""
    for body in (model.graph, *model.functions):
        yield from all_graphs(body)
