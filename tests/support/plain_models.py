"""Faulty models that import torch alone, as a user's own do: a repro.py runs them where modelpress is not installed."""

import torch
from torch import nn


class Wraps(nn.Module):
    """No fault of its own; draws weights of its own after the layer that it is given, so that order matters."""

    def __init__(self, layer, sizes, scale=1.0):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(sizes["from"], sizes["to"])
        self.scale = scale

    def forward(self, x):
        return self.head(self.layer(x)) * self.scale


class WrapsAndBranches(Wraps):
    """Differs at n = 7 alone."""

    def forward(self, x):
        y = super().forward(x)
        return y if x.shape[0] == 7 else y + 100


class BranchesOnValue(nn.Module):
    """Which branch is taken only the data says."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class TakesSingularValues(nn.Module):
    """aten._linalg_svd, for which torch has no ONNX function."""

    def forward(self, x):
        return torch.linalg.svdvals(x)


class DrawsNoise(nn.Module):
    """Gives another result at each call."""

    def forward(self, x):
        return x + torch.rand_like(x)


class BranchesOnSize(nn.Module):
    """The branch of the example, n > 3, is baked in."""

    def forward(self, x):
        return x * 2 if x.shape[0] > 3 else x * 3


class CannotBeBuilt(nn.Module):
    """The constructor fails."""

    def __init__(self):
        super().__init__()
        raise ValueError("no such size: -3")
