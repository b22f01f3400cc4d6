"""ResNet-18: two basic blocks a stage."""

from __future__ import annotations

from torch import nn

from genie.bench.models.resnet import Basic, ResNet
from genie.testing.weights import fill_


def build() -> nn.Module:
    """11.7 M parameters."""
    return fill_(ResNet(Basic, (2, 2, 2, 2))).eval()
