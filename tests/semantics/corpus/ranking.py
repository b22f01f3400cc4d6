"""Recommendation models written here after their papers: sparse lookups, dense interaction.

Regions: `sparse`, the lookups of ids and what is done to their rows alone; `dense`, what is done
to numeric features alone; `interaction`, where features meet, and all that follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.semantics.corpus.layers import mlp
from tests.semantics.corpus.registry import Inputs, floats, ids, model

FIELDS, ROWS, WIDTH = 6, 200, 8


class Tables(nn.Module):
    """int64[b, fields] -> float32[b, fields, width], each field from a table of its own."""

    def __init__(self, fields: int = FIELDS, width: int = WIDTH) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(ROWS, width) for _ in range(fields))

    def forward(self, ids: Tensor) -> Tensor:
        return torch.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], 1)


CLICKS: Inputs = {"numbers": floats(13), "ids": ids(FIELDS, below=ROWS)}


@model(
    "plain",
    "dlrm",
    "recsys",
    "Naumov et al. 2019, figure 1 (arXiv:1906.00091)",
    {"tables": "sparse", "bottom": "dense", "top": "interaction"},
)
def dlrm() -> Any:
    class DLRM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList(
                nn.EmbeddingBag(ROWS, WIDTH, mode="sum") for _ in range(FIELDS)
            )
            self.bottom = mlp(13, 32, WIDTH)
            self.top = mlp(WIDTH + (FIELDS + 1) ** 2, 32, 1)

        def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
            dense = self.bottom(numbers)
            rows = [table(ids[:, i : i + 1]) for i, table in enumerate(self.tables)]
            stacked = torch.stack([dense, *rows], 1)
            products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
            return self.top(torch.cat([dense, products], 1)).sigmoid()

    return DLRM(), CLICKS


@model(
    "plain",
    "wide-deep",
    "recsys",
    "Cheng et al. 2016, figure 1 (arXiv:1606.07792)",
    {"tables": "sparse", "wide": "sparse", "deep": "interaction"},
)
def wide_and_deep() -> Any:
    class WideDeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = Tables()
            self.wide = nn.EmbeddingBag(ROWS, 1, mode="sum")
            self.deep = mlp(FIELDS * WIDTH + 13, 64, 32, 1)

        def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
            wide = self.wide(ids)
            rows = self.tables(ids).flatten(1)
            return torch.sigmoid(wide + self.deep(torch.cat([rows, numbers], 1)))

    return WideDeep(), CLICKS


@model(
    "plain",
    "deepfm",
    "recsys",
    "Guo et al. 2017, figure 1 (arXiv:1703.04247)",
    {"tables": "sparse", "first": "sparse", "deep": "interaction", "!square": "interaction"},
)
def deepfm() -> Any:
    class DeepFM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables, self.first = Tables(), Tables(width=1)
            self.deep = mlp(FIELDS * WIDTH, 32, 1)

        def forward(self, ids: Tensor) -> Tensor:
            rows = self.tables(ids)
            pairs = 0.5 * (rows.sum(1).square() - rows.square().sum(1)).sum(1, keepdim=True)
            return torch.sigmoid(self.first(ids).sum(1) + pairs + self.deep(rows.flatten(1)))

    return DeepFM(), {"ids": ids(FIELDS, below=ROWS)}


@model(
    "plain",
    "dcn",
    "recsys",
    "Wang et al. 2021, figure 1 (arXiv:2008.13535)",
    {"tables": "sparse", "cross": "interaction", "deep": "interaction", "out": "interaction"},
)
def dcn_v2() -> Any:
    class Cross(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, width)

        def forward(self, first: Tensor, x: Tensor) -> Tensor:
            return first * self.linear(x) + x

    class DCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = FIELDS * WIDTH + 13
            self.tables = Tables()
            self.cross = nn.ModuleList(Cross(width) for _ in range(3))
            self.deep = mlp(width, 32, 16)
            self.out = nn.Linear(width + 16, 1)

        def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
            first = torch.cat([self.tables(ids).flatten(1), numbers], 1)
            x = first
            for cross in self.cross:
                x = cross(first, x)
            return self.out(torch.cat([x, self.deep(first)], 1)).sigmoid()

    return DCN(), CLICKS


@model(
    "plain",
    "two-tower",
    "recsys",
    "Yi et al. 2019, figure 2 (doi:10.1145/3298689.3346996)",
    {
        "users": "sparse",
        "items": "sparse",
        "user_tower": "interaction",
        "item_tower": "interaction:item",
    },
)
def two_tower() -> Any:
    class TwoTower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = Tables(3), Tables(4)
            self.user_tower, self.item_tower = mlp(3 * WIDTH, 32, 16), mlp(4 * WIDTH, 32, 16)

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            a = self.user_tower(self.users(user).flatten(1))
            b = self.item_tower(self.items(item).flatten(1))
            return (a * b).sum(1)

    return TwoTower(), {"user": ids(3, below=ROWS), "item": ids(4, below=ROWS)}


@model(
    "plain",
    "ncf",
    "recsys",
    "He et al. 2017, figure 3 (arXiv:1708.05031)",
    {
        **dict.fromkeys(("user_mf", "item_mf", "user_mlp", "item_mlp"), "sparse"),
        "mlp": "interaction",
        "out": "interaction",
    },
)
def neural_collaborative_filtering() -> Any:
    class NeuMF(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user_mf, self.item_mf = nn.Embedding(ROWS, 8), nn.Embedding(ROWS, 8)
            self.user_mlp, self.item_mlp = nn.Embedding(ROWS, 16), nn.Embedding(ROWS, 16)
            self.mlp, self.out = mlp(32, 16, 8), nn.Linear(16, 1)

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            factors = self.user_mf(user) * self.item_mf(item)
            deep = self.mlp(torch.cat([self.user_mlp(user), self.item_mlp(item)], 1))
            return self.out(torch.cat([factors, deep], 1)).sigmoid().squeeze(1)

    return NeuMF(), {"user": ids(below=ROWS), "item": ids(below=ROWS)}


@model(
    "plain",
    "din",
    "recsys",
    "Zhou et al. 2018, figure 2 (arXiv:1706.06978)",
    {"items": "sparse", "profile": "sparse", "activation": "interaction", "out": "interaction"},
)
def deep_interest_network() -> Any:
    class DIN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.profile = nn.Embedding(ROWS, WIDTH), Tables(3)
            self.activation, self.out = mlp(4 * WIDTH, 16, 1), mlp(5 * WIDTH, 32, 1)

        def forward(self, candidate: Tensor, history: Tensor, profile: Tensor) -> Tensor:
            wanted, seen = self.items(candidate), self.items(history)
            wide = wanted.unsqueeze(1).expand_as(seen)
            weights = self.activation(torch.cat([wide, seen, wide - seen, wide * seen], 2))
            interest = (weights * seen).sum(1)
            user = self.profile(profile).flatten(1)
            return self.out(torch.cat([wanted, interest, user], 1)).sigmoid()

    return DIN(), {
        "candidate": ids(below=ROWS),
        "history": ids(10, below=ROWS),
        "profile": ids(3, below=ROWS),
    }


@model(
    "plain",
    "mmoe",
    "recsys",
    "Ma et al. 2018, figure 1c (doi:10.1145/3219819.3220007)",
    {
        "tables": "sparse",
        "experts": "interaction",
        "gates": "interaction",
        "towers": "interaction",
    },
)
def multi_task_mixture() -> Any:
    class MMoE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = FIELDS * WIDTH + 13
            self.tables = Tables()
            self.experts = nn.ModuleList(mlp(width, 16) for _ in range(4))
            self.gates = nn.ModuleList(nn.Linear(width, 4) for _ in range(2))
            self.towers = nn.ModuleList(mlp(16, 8, 1) for _ in range(2))

        def forward(self, numbers: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
            x = torch.cat([self.tables(ids).flatten(1), numbers], 1)
            experts = torch.stack([expert(x) for expert in self.experts], 1)
            return tuple(
                tower((gate(x).softmax(1).unsqueeze(2) * experts).sum(1)).sigmoid()
                for gate, tower in zip(self.gates, self.towers, strict=True)
            )

    return MMoE(), CLICKS


@model(
    "plain",
    "autoint",
    "recsys",
    "Song et al. 2019, figure 2 (arXiv:1810.11921)",
    {"tables": "sparse", "attention": "interaction", "out": "interaction"},
)
def autoint() -> Any:
    class AutoInt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = Tables()
            self.attention = nn.ModuleList(
                nn.MultiheadAttention(WIDTH, 2, batch_first=True) for _ in range(2)
            )
            self.out = nn.Linear(FIELDS * WIDTH, 1)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tables(ids)
            for layer in self.attention:
                x = torch.relu(layer(x, x, x, need_weights=False)[0] + x)
            return self.out(x.flatten(1)).sigmoid()

    return AutoInt(), {"ids": ids(FIELDS, below=ROWS)}


@model(
    "plain",
    "fm",
    "recsys",
    "Rendle 2010, section III (doi:10.1109/ICDM.2010.127)",
    {"factors": "sparse", "weights": "sparse"},
)
def factorization_machine() -> Any:
    class FM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # One table for all fields, addressed with an offset for each.
            self.factors, self.weights = nn.Embedding(6 * ROWS, 8), nn.Embedding(6 * ROWS, 1)
            self.bias = nn.Parameter(torch.zeros(1))
            self.register_buffer("offsets", torch.arange(FIELDS) * ROWS)

        def forward(self, ids: Tensor) -> Tensor:
            ids = ids + self.offsets
            rows = self.factors(ids)
            pairs = 0.5 * (rows.sum(1) ** 2 - (rows**2).sum(1)).sum(1)
            return torch.sigmoid(self.bias + self.weights(ids).sum((1, 2)) + pairs)

    return FM(), {"ids": ids(FIELDS, below=ROWS)}


@model(
    "plain",
    "youtube",
    "recsys",
    "Covington et al. 2016, figure 3 (doi:10.1145/2959100.2959190)",
    {"watched": "sparse", "searched": "sparse", "tower": "interaction"},
)
def candidate_generation() -> Any:
    class Candidates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.watched = nn.EmbeddingBag(ROWS, 16, mode="mean")
            self.searched = nn.EmbeddingBag(2 * ROWS, 16, mode="mean")
            self.tower = mlp(32 + 4, 64, 32, ROWS)

        def forward(self, watched: Tensor, searched: Tensor, profile: Tensor) -> Tensor:
            bags = [self.watched(watched), self.searched(searched), profile]
            return self.tower(torch.cat(bags, 1))

    return Candidates(), {
        "watched": ids(20, below=ROWS),
        "searched": ids(10, below=ROWS),
        "profile": floats(4),
    }
