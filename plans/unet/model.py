"""A U-Net (Ronneberger et al. 2015) of two levels: skip connections over the whole network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genie.testing.weights import fill_


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU; the resolution stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """float32[batch, 1, 64, 64] -> one logit a pixel and class, float32[batch, 2, 64, 64]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1 = DoubleConv(1, width)
        self.down2 = DoubleConv(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = DoubleConv(2 * width, 4 * width)
        self.rise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = DoubleConv(4 * width, 2 * width)
        self.rise1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = DoubleConv(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        skip1 = self.down1(image)
        skip2 = self.down2(self.pool(skip1))
        x = self.bottom(self.pool(skip2))
        x = self.up2(torch.cat([self.rise2(x), skip2], 1))
        x = self.up1(torch.cat([self.rise1(x), skip1], 1))
        return {"mask": self.head(x)}


def build(width: int = 16) -> nn.Module:
    """0.1 M parameters by default."""
    return fill_(UNet(width)).eval()
