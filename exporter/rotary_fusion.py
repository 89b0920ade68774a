"""Keeps torch's optimizer from one wrong fusion: rotary embeddings whose cosines lack the batch.

At opset 23, `ONNXProgram.optimize()` makes `RotaryEmbedding` nodes of what Hugging Face's models compute
(onnxscript.rewriter.rules.fusion._rotary_embedding). It asks for the shape of `x` alone. Where positions are counted
and not given, as in Llama, cosines and sines are of a batch of 1 and were broadcast; the operator takes only
`(batch, sequence, head_size / 2)`, and ONNX Runtime refuses the node when it runs:

    Inputs 'cos_cache' and 'sin_cache' are expected to have the same shape as input 'x', got 1 and 24

Seen with onnxscript 0.7.2 and ONNX Runtime 1.32; tests/exporter/test_rotary_fusion.py reproduces it. Here the rule has
to see that the shapes fit. Nothing else of the optimizer is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.fusion import _rotary_embedding

__all__ = ["checked_rotary_fusion"]


@contextmanager
def checked_rotary_fusion() -> Iterator[None]:
    """Fuse rotary embeddings in the body only where that is right."""
    # Its rules are private and fixed; the optimizer looks this function up as it runs.
    original = _rotary_embedding.fuse_rotary_embedding
    _rotary_embedding.fuse_rotary_embedding = _fuse_where_shapes_fit
    try:
        yield
    finally:
        _rotary_embedding.fuse_rotary_embedding = original


def _fuse_where_shapes_fit(model: ir.Model, **_: Any) -> int:
    return RewriteRuleSet([_CheckedFusion.rule()]).apply_to_model(model)  # type: ignore[no-untyped-call]


class _CheckedFusion(_rotary_embedding.RotaryEmbedding23Fusion):
    """onnxscript's rule with a look at the shape of the angles."""

    def check(self, op: Any, x: ir.Value, freqs: ir.Value, **found: Any) -> Any:  # type: ignore[override]
        result = super().check(op, x, freqs=freqs, **found)
        if not result:
            return result
        assert x.shape is not None
        batch, _, sequence, head_size = x.shape
        if freqs.shape is None or None in (batch, sequence) or freqs.shape != [batch, sequence, head_size // 2]:
            return result.fail("The angles are not known to have the input's batch and sequence.", freqs)
        return result
