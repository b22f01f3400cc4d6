"""A ResNet with bottlenecks, two blocks a stage."""

from __future__ import annotations

from torch import nn

from genie.bench.models.resnet import Bottleneck, ResNet
from genie.testing.weights import fill_


def build() -> nn.Module:
    """16 M parameters."""
    return fill_(ResNet(Bottleneck, (2, 2, 2, 2))).eval()
