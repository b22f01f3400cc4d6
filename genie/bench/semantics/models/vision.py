"""A ResNet with bottlenecks (He et al. 2015), two blocks a stage."""

from __future__ import annotations

from torch import Tensor, nn

from genie.testing.weights import fill_


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; four times as wide outside as inside."""

    def __init__(self, before: int, inside: int, stride: int) -> None:
        super().__init__()
        outside = 4 * inside
        self.conv1 = nn.Conv2d(before, inside, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, outside, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outside)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """float32[batch, before, h, w] to float32[batch, 4·inside, h/stride, w/stride]."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        y += self.shortcut(x)
        result: Tensor = self.act(y)
        return result


class ResNet(nn.Module):
    """float32[batch, 3, 224, 224] to logits float32[batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.layer1 = nn.Sequential(Bottleneck(64, 64, 1), Bottleneck(256, 64, 1))
        self.layer2 = nn.Sequential(Bottleneck(256, 128, 2), Bottleneck(512, 128, 1))
        self.layer3 = nn.Sequential(Bottleneck(512, 256, 2), Bottleneck(1024, 256, 1))
        self.layer4 = nn.Sequential(Bottleneck(1024, 512, 2), Bottleneck(2048, 512, 1))
        self.head = nn.Linear(2048, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Classify."""
        x = self.layer2(self.layer1(self.stem(image)))
        result: Tensor = self.head(self.layer4(self.layer3(x)).mean((2, 3)))
        return result


def build() -> nn.Module:
    """16 M parameters."""
    return fill_(ResNet()).eval()
