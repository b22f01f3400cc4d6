"""Vectors of numbers without an order: tables, states of a game, points, pictures from noise.

Generic, as the papers cited describe them; no regions, for plans handle them generically.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.layers import features, mlp
from tests.semantics.corpus.registry import floats, ids, model


@model("plain", "tabular-mlp", "generic", "Gorishniy et al. 2021, section 3.1 (arXiv:2106.11959)")
def tabular_mlp() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp(16, 64, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    return features(Net())


@model("plain", "tabular-resnet", "generic", "Gorishniy et al. 2021, 3.2 (arXiv:2106.11959)")
def tabular_resnet() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 2)
            self.norms = nn.ModuleList(nn.BatchNorm1d(32) for _ in range(3))
            self.layers = nn.ModuleList(mlp(32, 64, 32) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + layer(norm(x))
            return self.last(x)

    return features(Net())


@model("plain", "autoencoder", "generic", "Hinton et al. 2006 (doi:10.1126/science.1127647)")
def autoencoder() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = mlp(64, 32, 8), mlp(8, 32, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x)).sigmoid()

    return features(Net(), shape=(64,))


@model("plain", "diffusion-unet", "generic", "Ho et al. 2020, appendix B (arXiv:2006.11239)")
def diffusion_unet() -> Any:
    class Block(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
            self.time, self.norm = nn.Linear(32, b), nn.GroupNorm(4, b)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return f.silu(self.two(self.norm(f.silu(self.one(x)) + self.time(t)[:, :, None, None])))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(32, 32), nn.SiLU())
            self.down1, self.down2, self.mid = Block(3, 16), Block(16, 32), Block(32, 32)
            self.up2, self.up1, self.out = Block(64, 16), Block(32, 16), nn.Conv2d(16, 3, 1)

        def forward(self, noisy: Tensor, step: Tensor) -> Tensor:
            rates = torch.exp(torch.arange(16) * -0.6)
            angle = step[:, None].float() * rates[None]
            t = self.time(torch.cat([angle.sin(), angle.cos()], 1))
            a = self.down1(noisy, t)
            b = self.down2(f.avg_pool2d(a, 2), t)
            x = self.mid(f.avg_pool2d(b, 2), t)
            x = self.up2(torch.cat([f.interpolate(x, scale_factor=2.0), b], 1), t)
            x = self.up1(torch.cat([f.interpolate(x, scale_factor=2.0), a], 1), t)
            return self.out(x)

    return UNet(), {"noisy": floats(3, 32, 32), "step": ids(below=1000)}


@model("plain", "score-mlp", "generic", "Ho et al. 2020 on points of a plane (arXiv:2006.11239)")
def diffusion_mlp() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.layers = nn.Embedding(100, 16), mlp(18, 64, 2)

        def forward(self, point: Tensor, step: Tensor) -> Tensor:
            return self.layers(torch.cat([point, self.steps(step)], 1))

    return Net(), {"point": floats(2), "step": ids(below=100)}


@model("plain", "actor-critic", "generic", "Schulman et al. 2017, section 6.1 (arXiv:1707.06347)")
def actor_critic() -> Any:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor, self.critic = mlp(8, 64, 64, 4), mlp(8, 64, 64, 1)

        def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
            return self.actor(state).softmax(1), self.critic(state)

    return features(Policy(), "state", (8,))


@model("plain", "normalizing-flow", "generic", "Dinh et al. 2017, section 3.2 (arXiv:1605.08803)")
def real_nvp() -> Any:
    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scales = nn.ModuleList(mlp(4, 32, 4) for _ in range(4))
            self.shifts = nn.ModuleList(mlp(4, 32, 4) for _ in range(4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            total = x.new_zeros(x.shape[0])
            for scale, shift in zip(self.scales, self.shifts, strict=True):
                a, b = x.chunk(2, 1)
                s = torch.tanh(scale(a))
                x = torch.cat([b * s.exp() + shift(a), a], 1)
                total = total + s.sum(1)
            return x, total

    return features(Flow(), shape=(8,))
