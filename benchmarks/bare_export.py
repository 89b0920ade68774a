"""What a user would write without modelpress: export, optimize, save, one parity check in ONNX Runtime.

The yardstick of benchmarks/README.md. Run it from any folder: `python benchmarks/bare_export.py OUT_DIR`.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn


class MLP(nn.Module):
    """The MLP of the PyTorch exporter's documentation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(8, 8)
        self.fc1 = nn.Linear(8, 4)
        self.fc2 = nn.Linear(4, 2)
        self.fc3 = nn.Linear(2, 2)

    def forward(self, tensor_x: torch.Tensor) -> torch.Tensor:
        """float32[batch, 8] to float32[batch, 2]."""
        tensor_x = torch.sigmoid(self.fc0(tensor_x))
        tensor_x = torch.sigmoid(self.fc1(tensor_x))
        tensor_x = torch.sigmoid(self.fc2(tensor_x))
        output: torch.Tensor = self.fc3(tensor_x)
        return output


def main(directory: Path) -> None:
    """Export the MLP and compare once."""
    model = MLP().eval()
    example = torch.randn(97, 8)
    program = torch.onnx.export(model, (example,), dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},))
    assert program is not None
    program.optimize()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.onnx"
    program.save(path)
    (actual,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"tensor_x": example.numpy()})
    np.testing.assert_allclose(actual, model(example).detach().numpy(), rtol=1e-4, atol=1e-5)
    print("exported and compared")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
