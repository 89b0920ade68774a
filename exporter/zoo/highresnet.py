"""A network for volumes, such as brain scans, whose activations are a thousand times its parameters."""

import torch
from torch import nn
from torch.nn.functional import pad

__all__ = ["HighResNet"]


class HighResNet(nn.Module):
    """The 3-D HighResNet, written anew after MONAI's (`spatial_dims=3`, batch norm): 0.8 million parameters.

    It keeps the input's resolution all the way, by dilated convolutions in place of pooling. The PyTorch documentation
    shows the memory of its exporters on it: https://docs.pytorch.org/docs/stable/onnx_dynamo_memory_usage.html.
    Source: Li et al., "On the Compactness, Efficiency, and Representation of 3D Convolutional Networks", IPMI 2017,
    https://arxiv.org/abs/1707.01992.

    Args:
        in_channels: Of the input volume.
        out_channels: Scores for each voxel.
        num_blocks: Residual blocks of each of the three widths.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 3, num_blocks: int = 3) -> None:
        super().__init__()
        layers = [*_convolve(in_channels, 16, kernel_size=3), nn.ReLU()]
        width = 16
        for wider, dilation in ((16, 1), (32, 2), (64, 4)):
            for _ in range(num_blocks):
                layers.append(ResidualBlock(width, wider, dilation))
                width = wider
        layers += [*_convolve(width, 80, kernel_size=1), nn.ReLU(), *_convolve(80, out_channels, kernel_size=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """float32[batch, in_channels, depth, height, width] to float32[batch, out_channels, depth, height, width]."""
        scores: torch.Tensor = self.layers(volume)
        return scores


class ResidualBlock(nn.Module):
    """Two dilated convolutions, added to the input; new channels of the input are zeros on both sides."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (in_channels, out_channels):
            convolution = nn.Conv3d(width, out_channels, 3, padding=dilation, dilation=dilation)
            layers += [nn.BatchNorm3d(width), nn.ReLU(), convolution]
        self.layers = nn.Sequential(*layers)
        before = (out_channels - in_channels) // 2
        self.padding = (0,) * 6 + (before, out_channels - in_channels - before)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.layers(volume) + pad(volume, self.padding)
        return added


def _convolve(in_channels: int, out_channels: int, kernel_size: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv3d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return convolution, nn.BatchNorm3d(out_channels)
