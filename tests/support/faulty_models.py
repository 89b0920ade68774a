"""Tiny modules, most with one planted fault, and a short way to write the spec that exports one.

Every module here is built without arguments, so that `source: {_target_: faulty_models.Name}` names it too.
Those without a fault come first.
"""

import math
import os
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from plain_models import BranchesOnValue, DrawsNoise, TakesSingularValues  # noqa: F401  (faults as well)
from torch import nn

from exporter import Dim, ExportSpec, Input, ModelSpec, Output, Precision, PrecisionName

# Captured at 4, tried at 1, 4, 7 and 16: what is baked for one of these is missed at the others.
BATCH = {"n": Dim(min=1, max=16, example=4)}


def make_spec(
    target: str = "faulty_models.Perceptron",
    inputs: dict[str, Input] | None = None,
    dims: dict[str, Dim] | None = None,
    outputs: dict[str, Output] | None = None,
    **model: Any,
) -> ExportSpec:
    """A spec that is valid as it stands: `x: float32[n, 8]`, n from 1 to 16, in fp32."""
    return ExportSpec(
        id="tiny",
        model=ModelSpec(
            name="tiny",
            source={"_target_": target},
            inputs=inputs or {"x": Input(shape=["n", 8])},
            dims=deepcopy(BATCH if dims is None else dims),
            outputs=outputs or {},
            **model,
        ),
        precision=Precision(name=PrecisionName.fp32, rtol=1e-4, atol=1e-5),
    )


class Perceptron(nn.Module):
    """No fault; 576 bytes of weights, enough for a data file, and exact zeros among its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 16)

    def forward(self, x):
        return torch.relu(self.linear(x))


class Encodes(nn.Module):
    """No fault; a transformer of four layers, deep enough to lose a fault in."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        # As they are made they are ones and zeros, which the optimizer merges into one initializer for all layers.
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)

    def forward(self, x):
        return self.head(self.encoder(x))


class Doubles(nn.Module):
    """No fault, and no weights: the data file would be empty."""

    def forward(self, x):
        return x * 2


class Subtracts(nn.Module):
    """No fault; the order of its two arguments matters."""

    def forward(self, a, b):
        return a - 2 * b


class Gathers(nn.Module):
    """No fault; takes whole numbers and a mask, and gives both back changed."""

    def forward(self, ids, mask):
        return torch.where(mask, ids, 0).sum(-1), mask.logical_not()


class DropsOut(nn.Module):
    """No fault once in eval mode; it is built in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x)


class WritesToItsInput(nn.Module):
    """Its argument is another tensor after each call; what it returns is right."""

    def forward(self, x):
        return x.mul_(2) + 1


class Ties(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class ReturnsTuple(nn.Module):
    """None among the outputs, and the same tensor twice."""

    def forward(self, x):
        doubled = x * 2
        return doubled, None, doubled, x + 1


class ReturnsNumber(nn.Module):
    """A whole number among the outputs."""

    def forward(self, x):
        return x * 2, 5


class ReturnsDict(nn.Module):
    """Keys for names; one is also the name of an input."""

    def forward(self, x):
        return {"first": x * 2, "x": x * 3, "nested": {"last": x[:, 0]}}


class ReturnsLikeNamedKeys(nn.Module):
    """Two keys that come to the same name, a_b."""

    def forward(self, x):
        return {"a": {"b": x * 2}, "a_b": x * 3}


class ReturnsItsInput(nn.Module):
    """The first output is the input itself."""

    def forward(self, x):
        return x, x * 2


class ReturnsNothing(nn.Module):
    """No tensor to compare: nothing can be proven of it."""

    def forward(self, x):
        return None


class ReturnsSize(nn.Module):
    """A number that depends on the size, which in the graph is a tensor and in eager mode is none."""

    def forward(self, x):
        return x * 2, x.shape[0]


class BranchesOnSize(nn.Module):
    """The branch of the example, n > 3, is baked in."""

    def forward(self, x):
        return x * 2 if x.shape[0] > 3 else x * 3


class BranchesOnOneSize(nn.Module):
    """Differs at one size only, n = 7, and there by 100 from an exact zero."""

    def forward(self, x):
        return x * 0 if x.shape[0] == 7 else x * 0 + 100


class FixesSize(nn.Module):
    """Holds for n = 4 alone."""

    def forward(self, x):
        return x.reshape(4, 8) + 1


class NeedsEvenSize(nn.Module):
    """Its own eager forward fails where n is odd."""

    def forward(self, x):
        return x.view(-1, 2, 8)


class Adds(nn.Module):
    """Makes the first axes of its arguments equal, whatever they are declared as."""

    def forward(self, a, b):
        return a + b


class Counts(nn.Module):
    """Gives another result at each call, without any randomness: it keeps a count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class TakesLogarithm(nn.Module):
    """NaN for each negative element."""

    def forward(self, x):
        return torch.log(x)


class Raises(nn.Module):
    """forward fails, with a message that is also markup."""

    def forward(self, x):
        raise ValueError("no | <b>such</b> thing")


class Exits(nn.Module):
    """forward ends the process."""

    def forward(self, x):
        sys.exit(3)


class RefusesTorchScript(nn.Module):
    """forward fails under the tracer of TorchScript alone."""

    def forward(self, x):
        if torch.jit.is_tracing():
            raise ValueError("no tracing here")
        return x * 2


class Swells(nn.Module):
    """Needs 64 MiB for a moment."""

    def forward(self, x):
        return x + torch.ones(2**24).sum()


class Sleeps(nn.Module):
    """forward leaves the process's id in the working directory, then takes a minute."""

    def forward(self, x):
        Path("sleeper.tmp").write_text(str(os.getpid()))
        Path("sleeper.tmp").rename("sleeper")
        time.sleep(60)
        return x


class CannotBeBuilt(nn.Module):
    """The constructor fails."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such size: -3")


class NotAModule:
    """Can be called, and is no nn.Module."""

    def __call__(self, x):
        return x


NUMBER = 3


class AttendsOverHeads(nn.Module):
    """Attention on three axes, as in much hand-written code; torch's ONNX function for it takes four only."""

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


class AttendsUnderVmap(nn.Module):
    """vmap has a rule of its own for the flash kernel, and that rule fixes the batch's size."""

    def forward(self, x):
        return torch.vmap(self._attend)(x)

    def _attend(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x).transpose(1, 2)


class TurnsGradientsOn(nn.Module):
    """All of forward is a region with gradients on, which torch's decomposition step cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        with torch.enable_grad():
            return self.linear(x) * 2


class DiffersUnderDynamo(nn.Module):
    """Takes an operator whose ONNX function fails here, unless Dynamo is what captures it."""

    def forward(self, x):
        if torch.compiler.is_dynamo_compiling():
            return x * 2
        return x * 2 + torch.histc(x, 4)[:1] * 0


class TakesRootOfSize(nn.Module):
    """The root of a symbolic size is a function of Python, not an operator, and has no ONNX function either."""

    def forward(self, x):
        return x * math.sqrt(x.shape[0])


class TakesManyOperators(nn.Module):
    """Three operators for which torch has no ONNX function, the first of them in the body of a branch."""

    def forward(self, x):
        def body(y):
            return y.cumprod(0)

        branched = torch.cond(x.sum() > 0, body, lambda y: y * 2, (x,))
        return torch.linalg.svdvals(x).sum() + x.median(1).values.sum() + branched
