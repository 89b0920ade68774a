"""A second graph for a debugger: the saved one with the trace that saving removed, on the same data file."""

import onnx
import onnx_ir as ir

from exporter.directory import ExportDirectory
from exporter.subgraphs import all_graphs

__all__ = ["collect_metadata", "write_debug_copy"]

Metadata = dict[str, dict[str, str]]


def collect_metadata(model: ir.Model) -> Metadata:
    """What the exporter noted of each node, by the node's name: stack trace, module, source line."""
    return {node.name: dict(node.metadata_props) for node in model.graph.all_nodes() if node.name}


def write_debug_copy(metadata: Metadata, directory: ExportDirectory) -> None:
    """Write model.debug.onnx beside model.onnx, whose weights it shares.

    It holds absolute paths and lines of source: it is for who debugs, not for who ships.
    """
    model = onnx.load(directory.model, load_external_data=False)
    for graph in all_graphs(model.graph):
        for node in graph.node:
            for key, value in metadata.get(node.name, {}).items():
                node.metadata_props.add(key=key, value=value)
    directory.model_debug.write_bytes(model.SerializeToString(deterministic=True))
