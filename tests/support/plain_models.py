"""Faulty models that import torch alone, as a user's own do: a repro.py runs them where modelpress is not installed."""

from dataclasses import dataclass

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


def is_captured() -> bool:
    """What these modules plant their faults by: torch.export captures other arithmetic than eager mode does."""
    return torch.compiler.is_exporting()


class TakesNested(nn.Module):
    """By position, a dict, a list of tuples, None, a word and a number; captured, it is off by `fault`."""

    def __init__(self, fault=0.0):
        super().__init__()
        self.fault = fault

    def forward(self, table, /, *rest, past, images, mask=None, mode="", scale=1.0):
        assert mask is None
        assert mode == "double"
        assert isinstance(past[0], tuple)
        y = table["x"] + rest[0] * rest[1] - past[0][1] / 2
        y = y + images["left"] * scale + past[0][0]
        return {"first": y + self.fault if is_captured() else y, "rest": [None, images["right"]]}


class Joins(nn.Module):
    """Its second argument is twice as long as the first; another one, 3 longer, differs at seq = 8 alone."""

    def forward(self, once, twice, more):
        y = torch.cat([once, once], 1) + twice
        return y, more * 3 if once.shape[1] != 8 else more


@dataclass
class Numbers:
    wide: torch.Tensor
    narrow: torch.Tensor
    turned: torch.Tensor
    nothing: torch.Tensor | None = None


class TakesNumbers(nn.Module):
    """A dataclass of three formats, of which the complex one is wrong when captured."""

    def forward(self, half, eighth, turn):
        turned = turn * 1j if is_captured() else turn * (1 + 1j)
        return Numbers(wide=half.float() + eighth.float(), narrow=half.reshape(-1), turned=turned)


def make_sorted(sizes, generator, high):
    """An input factory: offsets that rise, and the length that they end at."""
    offsets = torch.randint(0, high, (sizes["n"],), generator=generator).sort().values
    return {"offsets": offsets, "last": offsets[-1].clone()}


class Differences(nn.Module):
    """Off by one when captured."""

    def forward(self, offsets, last, x):
        return ((last - offsets).to(x.dtype)[:, None] + is_captured()) * x


class Ties(nn.Module):
    """Two layers with one weight, and one of its own; captured, the last bias counts twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.second(self.first(x)) + self.bias * (1 + is_captured())


class IsSlightlyOff(nn.Module):
    """Captured, it is off by a ten thousandth, which a tolerance of a thousandth lets through."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 64)

    def forward(self, x):
        y = self.linear(x.float()).to(torch.float32)
        return y * 1.0001 if is_captured() else y


class TakesLogarithm(nn.Module):
    """Not a number for what is negative."""

    def forward(self, x):
        return torch.log(x)


class Adds(nn.Module):
    """Makes the first axes of its arguments equal, whatever they are declared as."""

    def forward(self, a, b):
        return a + b


class ReturnsMore(nn.Module):
    """Two tensors at n = 7, one elsewhere."""

    def forward(self, x):
        return (x, x * 2) if x.shape[0] == 7 else x * 2
