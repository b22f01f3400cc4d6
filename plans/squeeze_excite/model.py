"""Squeeze-and-excitation (Hu et al. 2017), its arithmetic in the parent, between modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genie.testing.weights import fill_


class SqueezeExcite(nn.Module):
    """float32[batch, 3, 32, 32] -> logits float32[batch, 10]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.gate = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width)
        )
        self.head = nn.Linear(width + 3, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        squeezed = features.mean((2, 3))
        gates = torch.sigmoid(self.gate(squeezed))
        excited = (features * gates[:, :, None, None]).mean((2, 3))
        logits: Tensor = self.head(torch.cat([excited, image.mean((2, 3))], 1))
        return logits


def build(width: int = 32) -> nn.Module:
    """1.9 k parameters by default."""
    return fill_(SqueezeExcite(width)).eval()
