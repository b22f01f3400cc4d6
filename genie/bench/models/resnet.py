"""ResNets (He et al. 2015) as plain modules: any block, any number of them in each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

__all__ = ["Basic", "Bottleneck", "ResNet"]


def _shortcut(before: int, outside: int, stride: int) -> nn.Module:
    """What is added to a block's result: its input, projected where the shapes differ."""
    if stride == 1 and before == outside:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class Basic(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, before: int, inside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inside)
        self.act = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(before, inside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """float32[batch, before, h, w] to float32[batch, inside, h/stride, w/stride]."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        result: Tensor = self.act(y)
        return result


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; four times as wide outside as inside."""

    expansion: ClassVar[int] = 4

    def __init__(self, before: int, inside: int, stride: int) -> None:
        super().__init__()
        outside = self.expansion * inside
        self.conv1 = nn.Conv2d(before, inside, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, outside, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outside)
        self.act = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(before, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """float32[batch, before, h, w] to float32[batch, 4·inside, h/stride, w/stride]."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        y += self.shortcut(x)
        result: Tensor = self.act(y)
        return result


class ResNet(nn.Module):
    """float32[batch, 3, 224, 224] to logits float32[batch, 1000].

    `depths` says how many blocks each of the four stages has; a stage is twice as wide as the one
    before it, at half its resolution.
    """

    def __init__(self, block: type[Basic | Bottleneck], depths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )

        def stage(before: int, inside: int, stride: int, depth: int) -> nn.Sequential:
            more = (block(block.expansion * inside, inside, 1) for _ in range(depth - 1))
            return nn.Sequential(block(before, inside, stride), *more)

        one, two, three, four = depths
        self.layer1 = stage(64, 64, 1, one)
        self.layer2 = stage(64 * block.expansion, 128, 2, two)
        self.layer3 = stage(128 * block.expansion, 256, 2, three)
        self.layer4 = stage(256 * block.expansion, 512, 2, four)
        self.head = nn.Linear(512 * block.expansion, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Classify."""
        x = self.layer2(self.layer1(self.stem(image)))
        result: Tensor = self.head(self.layer4(self.layer3(x)).mean((2, 3)))
        return result
