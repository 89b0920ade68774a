"""Models with a fault each, of a kind that people make; docs/screenshots.py shows what a reviewer sees of them."""

import torch
from torch import nn

__all__ = ["Ranker", "Router"]


class Ranker(nn.Module):
    """Scores queries against documents; leaves small batches alone, which its graph does not."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(16, 8)
        self.document = nn.Linear(16, 8)

    def forward(self, queries: torch.Tensor, documents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = torch.tanh(self.query(queries))
        scores = embeddings @ self.document(documents).T
        if queries.shape[0] > 2:
            scores = scores - scores.mean(0)
        return scores, embeddings


class Router(nn.Module):
    """Decides by the data which way to go, which cannot be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(16, 4)
        self.wide = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.mean() > 0:
            return self.wide(features)
        return self.narrow(features)
