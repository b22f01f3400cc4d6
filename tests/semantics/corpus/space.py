"""Graphs, clouds of points, and fields of physics.

Generic, as the papers cited describe them; no regions, for plans handle them generically.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.layers import features, mlp
from tests.semantics.corpus.registry import floats, model


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
