"""How far the edges of a graph reach in its drawing, which is what takes a browser its time.

A layered layout gives each edge a place in every row that it passes. So a chain of a few thousand nodes is drawn in
seconds, and with a mask or an angle that all its layers use, never.
"""

import onnx

__all__ = ["sum_edge_rows"]


def sum_edge_rows(graph: onnx.GraphProto) -> int:
    """The rows that all edges reach over together, about as the viewer will have them; initializers have no edges.

    Args:
        graph: With its nodes in topological order, as ONNX has them.
    """
    edges = _find_edges(graph)
    # As far up as they can stand, a row below their lowest source...
    rows = [0] * (len(graph.input) + len(graph.node))
    for source, target in edges:
        rows[target] = max(rows[target], rows[source] + 1)
    # ...and then down to their highest target, where that makes more edges shorter than longer.
    num_in, num_out, lowest = [0] * len(rows), [0] * len(rows), [max(rows, default=0)] * len(rows)
    for source, target in reversed(edges):
        num_in[target] += 1
        num_out[source] += 1
    incoming: dict[int, list[int]] = {}
    for source, target in edges:
        incoming.setdefault(target, []).append(source)
    for place in reversed(range(len(rows))):
        if num_out[place] > num_in[place]:
            rows[place] = lowest[place]
        for source in incoming.get(place, []):
            lowest[source] = min(lowest[source], rows[place] - 1)
    return sum(rows[target] - rows[source] for source, target in edges)


def _find_edges(graph: onnx.GraphProto) -> list[tuple[int, int]]:
    """Pairs of places among inputs and nodes, in the order of their targets."""
    initializers = {tensor.name for tensor in graph.initializer}
    makers = {value.name: place for place, value in enumerate(graph.input) if value.name not in initializers}
    edges = []
    for place, node in enumerate(graph.node, start=len(graph.input)):
        # A constant is drawn within the node that takes it.
        edges += [(makers[name], place) for name in node.input if name in makers]
        if node.op_type != "Constant":
            makers.update((name, place) for name in node.output if name)
    return edges
