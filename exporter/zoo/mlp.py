"""The multilayer perceptron of the PyTorch ONNX exporter's own documentation."""

import torch
from torch import nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Four linear layers, 8-8-4-2-2, with a sigmoid between.

    Source: https://docs.pytorch.org/docs/stable/onnx_export.html, the simple MLP example.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(8, 8, bias=True)
        self.fc1 = nn.Linear(8, 4, bias=True)
        self.fc2 = nn.Linear(4, 2, bias=True)
        self.fc3 = nn.Linear(2, 2, bias=True)

    def forward(self, tensor_x: torch.Tensor) -> torch.Tensor:
        """float32[batch, 8] to float32[batch, 2]."""
        tensor_x = torch.sigmoid(self.fc0(tensor_x))
        tensor_x = torch.sigmoid(self.fc1(tensor_x))
        tensor_x = torch.sigmoid(self.fc2(tensor_x))
        output: torch.Tensor = self.fc3(tensor_x)
        return output
