"""An in-place activation on a view: whoever holds the base, or another view, sees the change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genie.testing.weights import fill_


class HalfRectified(nn.Module):
    """float32[batch, 3, 32, 32] -> logits float32[batch, 10].

    `act` rectifies the lower half of the channels in place, which saves a copy of the feature map.
    `features` and `first` share that memory, so a cut before or after `act` must not give
    them an older value.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width + width // 2 + 1, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        half = features.shape[1] // 2
        lower, upper, first = features[:, :half], features[:, half:], features[:, 0]
        self.act(lower)
        mixed = self.mix(features)
        parts = [mixed.mean((2, 3)), upper.mean((2, 3)), first.mean((1, 2))[:, None]]
        logits: Tensor = self.head(torch.cat(parts, 1))
        return logits


def build(width: int = 16) -> nn.Module:
    """3.0 k parameters by default."""
    return fill_(HalfRectified(width)).eval()
