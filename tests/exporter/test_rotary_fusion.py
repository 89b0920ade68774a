"""Rotary embeddings are fused at opset 23 where the operator can take them, and left alone where not."""

from contextlib import nullcontext

import faulty_models
import pytest
import torch

from exporter import Dim, DType, Fill, FillKind, Input, passes
from exporter.conductor import run_export
from exporter.errors import FailureKind


class Rotates(torch.nn.Module):
    """As Hugging Face's Llama does it: heads of 8, turned by angles that depend on the position."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", 1.0 / 100 ** (torch.arange(4) / 4))

    def rotate(self, x, positions):
        angles = positions[:, :, None].float() * self.frequencies
        doubled = torch.cat((angles, angles), dim=-1)
        turned = torch.cat((-x[..., 4:], x[..., :4]), dim=-1)
        return x * doubled.cos().unsqueeze(1) + turned * doubled.sin().unsqueeze(1)


class Counts(Rotates):
    """The positions are counted, once for the whole batch."""

    def forward(self, x):
        return self.rotate(x, torch.arange(x.shape[2])[None, :])


class Takes(Rotates):
    """The positions are given, for each of the batch."""

    def forward(self, x, positions):
        return self.rotate(x, positions)


def make_spec(opset, *, with_positions=False):
    inputs = {"x": Input(["batch", 2, "seq", 8])}
    if with_positions:
        inputs["positions"] = Input(["batch", "seq"], DType.int64, Fill(FillKind.arange))
    dims = {"batch": Dim(min=1, max=5, example=3), "seq": Dim(min=1, max=9, example=4)}
    spec = faulty_models.make_spec(inputs=inputs, dims=dims)
    spec.export.opset_version = opset
    spec.export.rescue = False
    return spec


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_counted_positions_pass_without_a_rescue(tmp_path, opset):
    result = run_export(make_spec(opset), tmp_path, Counts(), threads=1)
    assert result.failure is None
    assert "RotaryEmbedding" not in result.op_counts


def test_given_positions_are_still_fused(tmp_path):
    result = run_export(make_spec(23, with_positions=True), tmp_path, Takes(), threads=1)
    assert result.failure is None
    assert result.op_counts["RotaryEmbedding"] == 1


def test_counted_positions_fail_where_the_rule_is_left_as_it_is(tmp_path, monkeypatch):
    # Once this passes, onnxscript is mended, and exporter/rotary_fusion.py can go.
    monkeypatch.setattr(passes, "checked_rotary_fusion", nullcontext)
    result = run_export(make_spec(23), tmp_path, Counts(), threads=1)
    assert result.failure.kind is FailureKind.runtime_error
    assert "'cos_cache' and 'sin_cache' are expected to have the same shape" in result.failure.cause
