"""What forward returns: nested, doubled, literal, its own inputs."""

# Written as users write models, who annotate nothing of torch's.
# mypy: disable-error-code="no-any-return,operator,no-untyped-call,call-overload"
# mypy: disable-error-code="list-item,dict-item"

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import torch
from torch import Tensor

from tests.capture.zoo.cases import VECTOR, function, linear


@dataclasses.dataclass
class Pair:
    first: Tensor
    second: Any


torch.utils._pytree.register_dataclass(Pair)

Named = collections.namedtuple("Named", "left right")


@function(VECTOR, lin=linear)
def nested_outputs(self: Any, x: Tensor) -> Any:
    y = self.lin(x)
    return (y, {"b": [y + 1, None], "a": (y * 2,)}), {"c": Named(y.sum(), None)}


@function(VECTOR, lin=linear)
def dataclass_output(self: Any, x: Tensor) -> Any:
    return Pair(self.lin(x), {"deep": x.mean()})


@function(VECTOR, lin=linear)
def literal_outputs(self: Any, x: Tensor) -> Any:
    return {"n": 3, "f": 0.5, "s": "text", "t": True, "none": None, "y": self.lin(x)}


@function(VECTOR, lin=linear)
def size_outputs(self: Any, x: Tensor) -> Any:
    return self.lin(x), x.shape[0], x.shape[0] * 2 + 1


@function(VECTOR)
def input_is_output(self: Any, x: Tensor) -> Any:
    return x, x.relu(), x.view(-1)


@function(VECTOR, table=torch.arange(6.0))
def constant_is_output(self: Any, x: Tensor) -> Any:
    return self.table, x + self.table, self.table[2:4]


@function(VECTOR, lin=linear)
def duplicate_outputs(self: Any, x: Tensor) -> Any:
    y = self.lin(x)
    return y, y, {"again": y}, x, x


@function(VECTOR)
def views_as_outputs(self: Any, x: Tensor) -> Any:
    y = x * 2
    return y[:, :3], y.t(), y.view(-1), y.unsqueeze(0).expand(3, -1, -1)


@function(VECTOR)
def lifted_output(self: Any, x: Tensor) -> Any:
    return torch.tensor([1.0, 2.0]), x + torch.tensor(3.0), torch.tensor(7)
