"""One export of next to nothing: what torch loads and builds at its first export, it has then."""

import warnings

import torch
from torch import nn

from exporter import cuda
from exporter.operator_registry import kept_registry

__all__ = ["export_tiny_model"]


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


def export_tiny_model() -> None:
    """Export a tiny model, which makes torch import some 700 modules more than `import torch` does.

    Safe to fork after: no operator runs on more than one thread, CUDA is not started, and no session is opened.
    """
    with cuda.hidden_gpus(), torch.no_grad(), kept_registry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Tiny().eval(),
            (),
            kwargs={"x": torch.zeros(2, 2)},
            dynamo=True,
            verbose=False,
            optimize=False,
            dynamic_shapes={"x": {0: "batch"}},
        )
        if program is not None:
            program.optimize()
