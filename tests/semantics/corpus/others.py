"""What is none of the five workloads: tables of numbers, time series, graphs, physics, diffusion.

Documented as what they are in the papers cited; no regions, for the plan handles them generically.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.registry import add, floats, ids, model


def mlp(*sizes: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def features(model: nn.Module, name: str = "x", shape: tuple[int, ...] = (16,)) -> Any:
    return model, {name: floats(*shape)}


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


@model("plain", "graph-convolution", "generic", "Kipf et al. 2017, equation 9 (arXiv:1609.02907)")
def graph_convolution() -> Any:
    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
            x = torch.relu(adjacency @ self.one(nodes))
            return (adjacency @ self.two(x)).log_softmax(2)

    return GCN(), {"nodes": floats(10, 16), "adjacency": floats(10, 10)}


@model("plain", "message-passing", "generic", "Gilmer et al. 2017, section 2 (arXiv:1704.01212)")
def message_passing() -> Any:
    class MPNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.message, self.update = mlp(32, 32, 16), mlp(32, 32, 16)
            self.read = nn.Linear(16, 1)

        def forward(self, nodes: Tensor, source: Tensor, target: Tensor) -> Tensor:
            x = nodes
            for _ in range(2):
                sent = self.message(torch.cat([x[source], x[target]], 1))
                held = torch.zeros_like(x).index_add(0, target, sent)
                x = self.update(torch.cat([x, held], 1))
            return self.read(x.sum(0))

    edges = {"dtype": "int64", "shape": [40], "low": 0, "high": 12}
    nodes = {"dtype": "float32", "shape": [12, 16]}
    return MPNN(), {"nodes": nodes, "source": edges, "target": edges}


@model("plain", "graph-attention", "generic", "Veličković et al. 2018, 2.1 (arXiv:1710.10903)")
def graph_attention() -> Any:
    class GAT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.left = nn.Linear(16, 32), nn.Linear(32, 1)
            self.right, self.out = nn.Linear(32, 1), nn.Linear(32, 4)

        def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
            x = self.project(nodes)
            scores = f.leaky_relu(self.left(x) + self.right(x).transpose(1, 2), 0.2)
            scores = scores.masked_fill(adjacency <= 0, -1e9)
            return self.out(f.elu(scores.softmax(2) @ x))

    return GAT(), {"nodes": floats(10, 16), "adjacency": floats(10, 10)}


@model("plain", "lstm-forecast", "generic", "Salinas et al. 2020, section 3.1 (arXiv:1704.04110)")
def lstm_forecaster() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(3, 32, 2, batch_first=True)
            self.mean, self.scale = nn.Linear(32, 1), nn.Linear(32, 1)

        def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
            x = self.recurrent(series)[0]
            return self.mean(x), f.softplus(self.scale(x))

    return features(Net(), "series", (24, 3))


@model("plain", "tcn", "generic", "Bai et al. 2018, section 3 (arXiv:1803.01271)")
def temporal_convolution() -> Any:
    class Block(nn.Module):
        def __init__(self, a: int, b: int, dilation: int) -> None:
            super().__init__()
            self.pad = 2 * dilation
            self.conv = nn.Conv1d(a, b, 3, dilation=dilation)
            self.short = nn.Conv1d(a, b, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(f.pad(x, (self.pad, 0))) + self.short(x))

    class TCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(3, 16, 1), Block(16, 16, 2), Block(16, 16, 4))
            self.out = nn.Linear(16, 1)

        def forward(self, series: Tensor) -> Tensor:
            return self.out(self.blocks(series)[:, :, -1])

    return features(TCN(), "series", (3, 32))


@model("plain", "n-beats", "generic", "Oreshkin et al. 2020, figure 1 (arXiv:1905.10437)")
def n_beats() -> Any:
    class NBeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(mlp(24, 32, 32 + 4) for _ in range(3))

        def forward(self, series: Tensor) -> Tensor:
            total = torch.zeros_like(series[:, :4])
            for block in self.blocks:
                made = block(series)
                total = total + made[:, 32:]
                series = series - made[:, :24]
            return total

    return features(NBeats(), "series", (24,))


@model(
    "plain",
    "physics-informed",
    "generic",
    "Raissi et al. 2017, section 3 (arXiv:1711.10561)",
)
def physics_informed() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(a, 20) for a in (2, 20, 20))
            self.out = nn.Linear(20, 1)

        def forward(self, place: Tensor) -> Tensor:
            for layer in self.layers:
                place = torch.tanh(layer(place))
            return self.out(place)

    return features(Net(), "place", (2,))


@model("plain", "radiance-field", "generic", "Mildenhall et al. 2020, figure 7 (arXiv:2003.08934)")
def radiance_field() -> Any:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.density = mlp(63, 64, 64), nn.Linear(64, 1)
            self.color = mlp(64 + 3, 32, 3)

        def forward(self, place: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
            angle = (place[..., None] * 2.0 ** torch.arange(10)).flatten(1)
            x = torch.relu(self.body(torch.cat([place, angle.sin(), angle.cos()], 1)))
            return self.color(torch.cat([x, direction], 1)).sigmoid(), self.density(x).relu()

    return Field(), {"place": floats(3), "direction": floats(3)}


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


@model(
    "plain",
    "point-net",
    "generic",
    "Qi et al. 2017, without transforms (arXiv:1612.00593)",
)
def point_net() -> Any:
    class PointNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.points = nn.Sequential(
                nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.ReLU()
            )
            self.head = mlp(64, 32, 10)

        def forward(self, points: Tensor) -> Tensor:
            return self.head(self.points(points).amax(2))

    return features(PointNet(), "points", (3, 64))


@model("plain", "text-gru", "generic", "Cho et al. 2014, the encoder alone (arXiv:1406.1078)")
def text_gru_classifier() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.recurrent = nn.Embedding(100, 16), nn.GRU(16, 32, batch_first=True)
            self.out = nn.Linear(32, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.recurrent(self.words(tokens))[0][:, -1])

    return Net(), {"tokens": ids(12)}


@model("plain", "text-cnn", "generic", "Kim 2014, figure 1 (arXiv:1408.5882)")
def text_cnn_classifier() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(100, 16)
            self.convs = nn.ModuleList(nn.Conv1d(16, 8, size) for size in (3, 4, 5))
            self.out = nn.Linear(24, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.words(tokens).transpose(1, 2)
            return self.out(torch.cat([conv(x).relu().amax(2) for conv in self.convs], 1))

    return Net(), {"tokens": ids(16)}


@model("plain", "series-transformer", "generic", "Zerveas et al. 2021, figure 1 (arXiv:2010.02803)")
def series_transformer() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(6, 32), nn.Linear(32, 6)
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, series: Tensor) -> Tensor:
            return self.out(self.encoder(self.first(series)))

    return features(Net(), "series", (24, 6))


# -- torch's own modules, as torch.nn documents them -----------------------------------------------

NN = "https://docs.pytorch.org/docs/stable/generated/torch.nn."


class Positional(nn.Module):
    """A module of torch.nn that takes its tensors by position, under names."""

    def __init__(self, module: nn.Module, *, first: bool = False) -> None:
        super().__init__()
        self.module, self.first = module, first

    def forward(self, x: Tensor) -> Any:
        found = self.module(x)
        return found[0] if self.first else found


class TwoInputs(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, source: Tensor, target: Tensor) -> Any:
        return self.module(source, target)


def own(name: str, page: str, build: Any) -> None:
    add(name, "torch", page, "generic", f"{NN}{page}.html", {}, build)


PAIR = {"source": floats(10, 32), "target": floats(6, 32)}
own(
    "nn_transformer",
    "Transformer",
    lambda: (TwoInputs(nn.Transformer(32, 4, 2, 2, 64, batch_first=True)), PAIR),
)
own(
    "nn_transformer_encoder",
    "TransformerEncoder",
    lambda: (
        Positional(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True),
                3,
                nn.LayerNorm(32),
                enable_nested_tensor=False,
            )
        ),
        {"x": floats(10, 32)},
    ),
)
own(
    "nn_transformer_decoder",
    "TransformerDecoder",
    lambda: (
        TwoInputs(
            nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), 2)
        ),
        PAIR,
    ),
)
own(
    "nn_lstm",
    "LSTM",
    lambda: (Positional(nn.LSTM(8, 16, 2, batch_first=True), first=True), {"x": floats(10, 8)}),
)
own(
    "nn_gru",
    "GRU",
    lambda: (Positional(nn.GRU(8, 16, batch_first=True), first=True), {"x": floats(10, 8)}),
)
own(
    "nn_bilinear",
    "Bilinear",
    lambda: (TwoInputs(nn.Bilinear(8, 6, 4)), {"source": floats(8), "target": floats(6)}),
)
