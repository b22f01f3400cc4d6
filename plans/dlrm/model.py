"""A deep learning recommendation model (Naumov et al. 2019): embedding bags, dot interaction."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from genie.testing.weights import fill_


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DLRM(nn.Module):
    """Dense features float32[batch, 13] and ids int64[batch, tables, hot] -> clicks float32[batch].

    Every table sums the `hot` rows that its ids name; all pairs of the resulting vectors and of
    the bottom MLP's output are multiplied.
    """

    left: Tensor
    right: Tensor

    def __init__(self, tables: int, rows: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for _ in range(tables))
        self.bottom = mlp(13, 128, 64, width)
        pairs = torch.tril_indices(tables + 1, tables + 1, offset=-1)
        self.register_buffer("left", pairs[0], persistent=False)
        self.register_buffer("right", pairs[1], persistent=False)
        self.top = mlp(width + pairs.shape[1], 128, 64, 1)

    def forward(self, dense: Tensor, ids: Tensor) -> dict[str, Tensor]:
        bottom = self.bottom(dense).relu()
        vectors = [bottom, *(table(ids[:, i]) for i, table in enumerate(self.tables))]
        stacked = torch.stack(vectors, 1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.left, self.right]
        score = self.top(torch.cat([bottom, products], 1))
        return {"click": torch.sigmoid(score).squeeze(1)}


def build(tables: int = 8, rows: int = 2000, width: int = 32) -> nn.Module:
    """0.5 M parameters by default, nearly all of them in the tables."""
    return fill_(DLRM(tables, rows, width)).eval()
