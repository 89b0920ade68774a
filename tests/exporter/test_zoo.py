"""What the zoo's own models promise about their size."""

import torch

from exporter.zoo.highresnet import HighResNet


def test_the_highresnet_has_as_many_parameters_as_the_documentations():
    # 3.1 MiB in float32, as MONAI's with spatial_dims=3, in_channels=1, out_channels=3 and batch norm.
    assert sum(parameter.numel() for parameter in HighResNet().parameters()) == 809_801


def test_a_residual_block_adds_its_input_to_the_middle_channels():
    module = HighResNet(num_blocks=1).eval()
    widens = module.layers[4]
    for parameter in widens.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    volume = torch.randn(1, 16, 3, 3, 3)
    found = widens(volume)
    assert found.shape == (1, 32, 3, 3, 3)
    assert torch.equal(found[:, 8:24], volume)
    assert found[:, :8].count_nonzero() == found[:, 24:].count_nonzero() == 0
