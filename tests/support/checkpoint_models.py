"""Modules whose weights come from a checkpoint: those that stream, and those that cannot."""

import torch
from torch import nn
from torch.nn.utils import parametrizations


class Layers(nn.Module):
    """Enough of everything: ties, buffers in and out of the state, a norm that counts, a table, a transposed use."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 8)
        self.norm = nn.BatchNorm1d(8)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 32, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("frequencies", 1.0 / torch.arange(1.0, 9.0), persistent=False)
        self.register_buffer("scale", torch.full((8,), 2.0))
        self.register_buffer("positions", torch.arange(8), persistent=False)

    def forward(self, x):
        hidden = self.norm(x * self.frequencies + self.positions) * self.scale
        return self.head(self.hidden(hidden.unsqueeze(1)).squeeze(1)) + self.table(self.positions).sum()


class Looks(nn.Linear):
    """Reads a weight's value in its constructor."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.factor = float(self.weight.detach().abs().max()) * 0 + 2

    def forward(self, x):
        return super().forward(x) * self.factor


class Derives(nn.Linear):
    """Has a buffer that is computed from a weight, and not saved."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.register_buffer("norms", self.weight.detach().norm(dim=1) * 0 + 1, persistent=False)

    def forward(self, x):
        return super().forward(x) * self.norms


class Keeps(nn.Linear):
    """Has a tensor in a list, computed from a weight."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.kept = [self.weight.detach().sum() * 0]

    def forward(self, x):
        return super().forward(x) + self.kept[0]


class Draws(nn.Linear):
    """Has a random buffer, drawn after its weights and not saved."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.register_buffer("noise", torch.randn(8), persistent=False)

    def forward(self, x):
        return super().forward(x) * self.noise


class DrawsParameter(nn.Module):
    """Draws a parameter, which the checkpoint replaces; its buffer is no random one."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(8))
        self.register_buffer("ones", torch.ones(8), persistent=False)

    def forward(self, x):
        return x * self.token + self.ones


class Special(nn.Parameter):
    """A parameter of a class of its own."""


class HasSpecial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = Special(torch.randn(8))

    def forward(self, x):
        return x * self.weight


def make_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU())


def make_spectral() -> nn.Module:
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(8, 8)))


def make_old_normed() -> nn.Module:
    return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(8, 8)))


def make_shared_layer() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer)


class Recurrent(nn.Sequential):
    """A layer that keeps its parameters in a list as well."""

    def forward(self, input):  # noqa: A002
        return self[1](self[0](input).unsqueeze(1))[0].squeeze(1)


def make_recurrent() -> nn.Module:
    return Recurrent(nn.Linear(8, 8), nn.LSTM(8, 8, batch_first=True))


class Odd(nn.Linear):
    """Has one byte in front of its weights."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.register_buffer("odd", torch.zeros(1, dtype=torch.uint8))

    def forward(self, x):
        return super().forward(x)
