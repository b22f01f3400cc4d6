"""Vision models written here after their papers; stages as in `sight`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from tests.semantics.corpus.registry import floats, model

IMAGE = {"image": floats(3, 64, 64)}


def conv(a: int, b: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(),
    )


@model(
    "plain",
    "vgg",
    "vision",
    "Simonyan and Zisserman 2015, table 1: five stacks, each ending in a pool (arXiv:1409.1556)",
    {"stages.*": "stage", "head": "head"},
)
def vgg() -> Any:
    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [3, 8, 16, 24, 32]
            self.stages = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(b, b, 3, padding=1),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
                for a, b in itertools.pairwise(widths)
            )
            self.head = nn.Sequential(
                nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, 10)
            )

        def forward(self, image: Tensor) -> Tensor:
            for stage in self.stages:
                image = stage(image)
            return self.head(image)

    return VGG(), IMAGE


class Bottleneck(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv(a, b // 4, 1), conv(b // 4, b // 4, 3, stride)
        self.three = nn.Sequential(nn.Conv2d(b // 4, b, 1, bias=False), nn.BatchNorm2d(b))
        self.short = None
        if a != b or stride != 1:
            self.short = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.short is None else self.short(x)
        return torch.relu(self.three(self.two(self.one(x))) + short)


@model(
    "plain",
    "resnet",
    "vision",
    "He et al. 2016, table 1, 50 layers: conv1, conv2_x to conv5_x (arXiv:1512.03385)",
    {"stem": "stem", "stages.*": "stage", "head": "head"},
)
def bottleneck_resnet() -> Any:
    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1))
            widths = [16, 32, 64, 96, 128]
            self.stages = nn.ModuleList(
                nn.Sequential(Bottleneck(a, b, 1 if a == 16 else 2), Bottleneck(b, b, 1))
                for a, b in itertools.pairwise(widths)
            )
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image)
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    return ResNet(), IMAGE


@model(
    "plain",
    "densenet",
    "vision",
    "Huang et al. 2017, table 1: dense blocks between transitions (arXiv:1608.06993)",
    {"stem": "stem", "dense.*": "stage", "head": "head"},
)
def densenet() -> Any:
    class Dense(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Sequential(
                    nn.BatchNorm2d(width + 8 * i),
                    nn.ReLU(),
                    nn.Conv2d(width + 8 * i, 8, 3, padding=1, bias=False),
                )
                for i in range(3)
            )

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.cat([x, layer(x)], 1)
            return x

    class DenseNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1))
            self.dense = nn.ModuleList([Dense(16), Dense(20), Dense(22)])
            self.steps = nn.ModuleList(
                nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, 1), nn.AvgPool2d(2))
                for a, b in ((40, 20), (44, 22))
            )
            self.head = nn.Sequential(
                nn.BatchNorm2d(46),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(46, 10),
            )

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image)
            for i, block in enumerate(self.dense):
                x = block(x)
                if i < 2:
                    x = self.steps[i](x)
            return self.head(x)

    return DenseNet(), IMAGE


@model(
    "plain",
    "mobilenet",
    "vision",
    "Howard et al. 2017, table 1 (arXiv:1704.04861)",
    {
        "stem": "stem",
        **{
            f"layers.{i}": f"stage:{stage}"
            for stage, layers in enumerate([(0,), (1, 2), (3, 4), (5, 6)])
            for i in layers
        },
        "head": "head",
    },
)
def mobilenet_v1() -> Any:
    class MobileNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shapes = [(8, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1)]
            shapes += [(32, 64, 2), (64, 64, 1)]
            self.stem = conv(3, 8, 3, 2)
            self.layers = nn.ModuleList(
                nn.Sequential(conv(a, a, 3, stride, a), conv(a, b, 1)) for a, b, stride in shapes
            )
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image)
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    return MobileNet(), IMAGE


@model(
    "plain",
    "mixer",
    "vision",
    "Tolstikhin et al. 2021, figure 1 (arXiv:2105.01601)",
    {"stem": "stem", "blocks": "stage", "norm": "head", "head": "head"},
)
def mlp_mixer() -> Any:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
            self.tokens = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 64))
            self.channels = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm2(x))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 32, 8, 8)
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image).flatten(2).transpose(1, 2)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x).mean(1))

    return Mixer(), IMAGE


@model(
    "plain",
    "lenet",
    "vision",
    "LeCun et al. 1998, figure 2 (doi:10.1109/5.726791)",
    {"head": "head"},
)
def lenet() -> Any:
    features = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
    )
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Linear(84, 10)
    )

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = features, head

        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.features(image))

    return LeNet(), {"image": floats(1, 32, 32)}


@model(
    "plain",
    "patch-transformer",
    "vision",
    "Dosovitskiy et al. 2021, figure 1; patches cut by reshaping (arXiv:2010.11929)",
    {"embed": "stem", "encoder": "stage", "head": "head"},
)
def reshaped_vit() -> Any:
    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(192, 32)
            self.place = nn.Parameter(torch.randn(1, 64, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 10))

        def forward(self, image: Tensor) -> Tensor:
            x = image.reshape(-1, 3, 8, 8, 8, 8).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
            return self.head(self.encoder(self.embed(x) + self.place).mean(1))

    return ViT(), IMAGE


@model(
    "plain",
    "squeeze-excite",
    "vision",
    "Hu et al. 2018, table 1 (arXiv:1709.01507)",
    {"stem": "stem", "stages.*": "stage", "head": "head"},
)
def squeeze_excitation() -> Any:
    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.one, self.two = conv(a, b, 3, stride), conv(b, b)
            self.gate = nn.Sequential(
                nn.Linear(b, b // 4), nn.ReLU(), nn.Linear(b // 4, b), nn.Sigmoid()
            )
            self.short = nn.Conv2d(a, b, 1, stride) if a != b else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            made = self.two(self.one(x))
            gate = self.gate(made.mean((2, 3)))
            return torch.relu(made * gate[:, :, None, None] + self.short(x))

    class SENet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv(3, 16, 3, 2)
            self.stages = nn.ModuleList(
                nn.Sequential(Block(a, b, s), Block(b, b, 1))
                for a, b, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
            )
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image)
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    return SENet(), IMAGE
