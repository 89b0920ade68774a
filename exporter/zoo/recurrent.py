"""A recurrent sequence tagger: the smallest model whose graph loops over time."""

import torch
from torch import nn

__all__ = ["SequenceTagger"]


class SequenceTagger(nn.Module):
    """A bidirectional GRU of two layers and a linear layer that scores each time step.

    Args:
        num_features: Width of the input at each time step.
        hidden_size: Width of the GRU's state in each direction.
        num_tags: How many tags a time step is scored for.
    """

    def __init__(self, num_features: int, hidden_size: int, num_tags: int) -> None:
        super().__init__()
        self.gru = nn.GRU(num_features, hidden_size, num_layers=2, batch_first=True, bidirectional=True)
        self.score = nn.Linear(2 * hidden_size, num_tags)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """float32[batch, time, num_features] to float32[batch, time, num_tags]."""
        states, _ = self.gru(features)
        logits: torch.Tensor = self.score(states)
        return logits
