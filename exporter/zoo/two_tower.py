"""A two-tower recommender: two inputs, and outputs that are named by a dict."""

import torch
from torch import nn
from torch.nn.functional import normalize

__all__ = ["TwoTower"]


class TwoTower(nn.Module):
    """Embeds queries and items by a tower each and scores each pair by the cosine between them.

    Args:
        query_features: Width of a query.
        item_features: Width of an item.
        embedding_size: Width of the embeddings, the same for both towers.
    """

    def __init__(self, query_features: int, item_features: int, embedding_size: int) -> None:
        super().__init__()
        self.query_tower = _make_tower(query_features, embedding_size)
        self.item_tower = _make_tower(item_features, embedding_size)

    def forward(self, query: torch.Tensor, item: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score queries against items, pair by pair.

        Args:
            query: float32[batch, query_features].
            item: float32[batch, item_features].

        Returns:
            score: float32[batch], from -1 to 1.
            query_embedding: float32[batch, embedding_size], of length 1.
            item_embedding: float32[batch, embedding_size], of length 1.
        """
        query_embedding = normalize(self.query_tower(query), dim=-1)
        item_embedding = normalize(self.item_tower(item), dim=-1)
        return {
            "score": (query_embedding * item_embedding).sum(dim=-1),
            "query_embedding": query_embedding,
            "item_embedding": item_embedding,
        }


def _make_tower(num_features: int, embedding_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_features, 4 * embedding_size),
        nn.ReLU(),
        nn.Linear(4 * embedding_size, embedding_size),
    )
