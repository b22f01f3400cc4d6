"""A deep learning recommendation model (Naumov et al. 2019) in the shape of the Criteo data.

26 categorical features with four ids each, 13 dense ones; all pairs of vectors are multiplied.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from genie.testing.weights import fill_

FEATURES, DENSE, WIDTH = 26, 13, 64


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Tables(nn.Module):
    """Ids int64[batch, tables, 4] to the sums of their rows, float32[batch, WIDTH] each."""

    def __init__(self, tables: int, rows: int) -> None:
        super().__init__()
        bags = (nn.EmbeddingBag(rows, WIDTH, mode="sum") for _ in range(tables))
        self.tables = nn.ModuleList(bags)

    def forward(self, ids: Tensor) -> list[Tensor]:
        """Look up."""
        return [table(ids[:, i]) for i, table in enumerate(self.tables)]


class Recommender(nn.Module):
    """float32[batch, 13], the ids in two halves int64[batch, 13, 4] -> clicks float32[batch]."""

    left: Tensor
    right: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        half = FEATURES // 2
        self.users = Tables(half, rows)
        self.items = Tables(FEATURES - half, rows)
        self.bottom = mlp(DENSE, 512, 256, WIDTH)
        pairs = torch.tril_indices(FEATURES + 1, FEATURES + 1, offset=-1)
        self.register_buffer("left", pairs[0], persistent=False)
        self.register_buffer("right", pairs[1], persistent=False)
        self.top = mlp(WIDTH + pairs.shape[1], 512, 256, 1)

    def forward(self, dense: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Score."""
        bottom = self.bottom(dense).relu()
        stacked = torch.stack([bottom, *self.users(users), *self.items(items)], 1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.left, self.right]
        score = self.top(torch.cat([bottom, products], 1))
        return torch.sigmoid(score).squeeze(1)


def build(rows: int = 20_000) -> nn.Module:
    """34 M parameters, nearly all of them in the tables."""
    return fill_(Recommender(rows)).eval()
