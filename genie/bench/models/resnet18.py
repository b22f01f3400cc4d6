"""ResNet-18 (He et al. 2015) as plain modules."""

from __future__ import annotations

from torch import Tensor, nn

from genie.testing.weights import fill_


class Block(nn.Module):
    """The basic block: two 3×3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """float32[batch, inside, h, w] to float32[batch, outside, h/stride, w/stride]."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        result: Tensor = self.act(y)
        return result


class ResNet18(nn.Module):
    """float32[batch, 3, 224, 224] to logits float32[batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(Block(*w) for w in widths))
        self.head = nn.Linear(512, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Classify."""
        result: Tensor = self.head(self.blocks(self.stem(image)).mean((2, 3)))
        return result


def build() -> nn.Module:
    """11.7 M parameters."""
    return fill_(ResNet18()).eval()
