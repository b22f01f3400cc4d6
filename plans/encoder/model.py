"""A small pre-norm transformer encoder that classifies multivariate time series."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from genie.testing.weights import fill_


class Layer(nn.Module):
    """Self-attention and an MLP, each behind a layer norm and around a residual.

    Not `nn.TransformerEncoderLayer`: in eval mode that one switches to a fused kernel which
    torch.export does not see, and whose last bits differ from the exported graph's.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class SeriesClassifier(nn.Module):
    """float32[batch, steps, 12] with up to 64 steps -> logits float32[batch, 6]."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.project = nn.Linear(12, width)
        self.positions = nn.Parameter(torch.zeros(1, 64, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 6)

    def forward(self, series: Tensor) -> Tensor:
        x = self.project(series) + self.positions[:, : series.shape[1]]
        logits: Tensor = self.head(self.norm(self.layers(x)).mean(1))
        return logits


def build(width: int = 64, heads: int = 4, layers: int = 4) -> nn.Module:
    """0.2 M parameters by default."""
    return fill_(SeriesClassifier(width, heads, layers)).eval()
