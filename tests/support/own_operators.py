"""A user's own operator, a model that needs it, and tables of ONNX functions for it: right ones and wrong ones."""

import torch
from onnxscript import opset20 as op
from torch import nn


@torch.library.custom_op("own_operators::shrink", mutates_args=())
def shrink(x: torch.Tensor, by: float) -> torch.Tensor:
    return torch.sign(x) * torch.clamp(x.abs() - by, min=0)


@shrink.register_fake
def _(x: torch.Tensor, by: float) -> torch.Tensor:
    return torch.empty_like(x)


class Shrinks(nn.Module):
    """Needs the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return torch.ops.own_operators.shrink(self.linear(x), 0.25)


class TakesRoot(nn.Module):
    """Needs a function on sizes that torch does not translate."""

    def forward(self, x):
        return x * x.shape[0] ** 0.5


def make_table(*, slope: float = 1.0):
    """The right table; with another slope, a wrong one."""

    def translate(x, by: float):
        positive = op.Relu(op.Sub(op.Abs(x), by))
        return op.Mul(op.Mul(op.Sign(x), positive), slope)

    return {torch.ops.own_operators.shrink.default: translate}


def make_table_of_a_packet():
    return {torch.ops.own_operators.shrink: lambda x, by: x}


def make_table_by_name():
    return {"own_operators::shrink": lambda x, by: x}


def make_table_of_numbers():
    return {torch.ops.own_operators.shrink.default: 3}


def make_list():
    return [torch.ops.own_operators.shrink.default]


def make_trouble():
    raise ValueError("no such operator")


def make_failing_table():
    def translate(x, by: float):
        raise ValueError("cannot translate")

    return {torch.ops.own_operators.shrink.default: translate}


def make_root_table():
    return {torch._sym_sqrt: lambda size: op.Sqrt(op.Cast(size, to=1))}
