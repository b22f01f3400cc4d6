"""A small residual CNN for scikit-learn's 8x8 handwritten digits; `train.py` trains it."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions around a residual; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        rectified: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return rectified


class DigitsCNN(nn.Module):
    """float32[batch, 1, 8, 8], pixels in 0..1 -> logits float32[batch, 10]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layer1 = Block(width, width)
        self.layer2 = Block(width, 2 * width, stride=2)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = self.layer2(self.layer1(self.stem(image)))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def build(width: int = 24) -> nn.Module:
    """The untrained network; the spec's `weights` replace every tensor of it."""
    return DigitsCNN(width).eval()
