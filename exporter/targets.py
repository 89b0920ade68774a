"""Finds the dotted paths that a config node names: those of its `_target_`s, nested ones too."""

from collections.abc import Iterator, Mapping

__all__ = ["collect_targets"]


def collect_targets(node: object) -> Iterator[str]:
    """Every `_target_` in mappings, lists and tuples, the outermost first; the same one may come more than once."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from collect_targets(item)
