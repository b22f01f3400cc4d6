"""How modules are put together: shared, oddly named, called with all kinds of parameters."""

# Written as users write models, who annotate nothing of torch's.
# mypy: disable-error-code="no-any-return,operator,no-untyped-call,call-overload"
# mypy: disable-error-code="list-item,dict-item"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.capture.compiling import with_forward
from tests.capture.zoo.cases import IMAGE, TOKENS, VECTOR, case, function, linear


@function(VECTOR, lin=linear)
def called_twice(self: Any, x: Tensor) -> Any:
    return self.lin(self.lin(x).relu())


@case(VECTOR)
def registered_twice() -> nn.Module:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    return Twice()


@case(TOKENS)
def tied_weights() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, 8)
            self.middle = nn.Linear(8, 8)
            self.head = nn.Linear(8, 12, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.middle(self.embed(ids)))

    return Tied()


@case(VECTOR)
def odd_names() -> nn.Module:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("my layer", nn.Linear(6, 6))
            self.add_module("my_layer", nn.Linear(6, 6))
            self.add_module("ünï-x@1", nn.Linear(6, 6))
            self.add_module("a" * 300, nn.Linear(6, 6))
            self.add_module("a" * 299 + "b", nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
            self.register_buffer("x", torch.ones(6))
            self.register_buffer("linear", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            for child in self.children():
                x = child(x)
            return x + self.x + self.linear

    return Odd()


@case({"input": ("float32", ["b", 6])})
def sequential_root() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 2), nn.Tanh()))


@function(VECTOR)
def no_parameters(self: Any, x: Tensor) -> Any:
    return x.relu()


@case(VECTOR)
def buffers_of_all_kinds() -> nn.Module:
    class Buffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("lost", torch.randn(6), persistent=False)
            self.register_buffer("turned", torch.randn(6, 4).t())
            self.register_buffer("part", torch.randn(8, 8)[1:7:2, 2:8])
            self.register_buffer("wide", torch.randn(1, 6).expand(4, 6))
            self.register_buffer("none", None)
            self.register_buffer("empty", torch.empty(0, 6))
            self.register_buffer("scalar", torch.tensor(2.0))
            self.register_buffer("flag", torch.tensor(True))
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("half_precision", torch.randn(6).half())
            self.register_buffer("brain", torch.randn(6).bfloat16())
            self.register_buffer("wave", torch.randn(6, dtype=torch.complex64))
            self.register_buffer("conj", torch.randn(6, dtype=torch.complex64).conj())
            self.register_buffer("negated", torch.randn(6, dtype=torch.complex64).conj().imag)

        def forward(self, x: Tensor) -> Any:
            y = x * self.lost + self.turned.sum(0) + self.part.sum(0) + self.wide.mean(0)
            y = torch.cat([y, self.empty]) * self.scalar + self.flag + self.count
            y = y + self.half_precision + self.brain + self.negated
            return y, self.wave * y, self.conj * y, self.turned, self.wide

    return Buffers()


@case(IMAGE)
def channels_last_weights() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    return with_forward(lambda self, x: self.net(x), net=net.to(memory_format=torch.channels_last))


@function(IMAGE, conv=lambda: nn.Conv2d(3, 4, 3, padding=1))
def channels_last_values(self: Any, x: Tensor) -> Any:
    x = x.contiguous(memory_format=torch.channels_last)
    y = self.conv(x)
    return y.mean((2, 3)), y, y.flatten(1), functional.adaptive_avg_pool2d(y, 2)


@function({"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])}, lin=linear)
def two_inputs(self: Any, x: Tensor, y: Tensor) -> Any:
    return self.lin(x) - y


@function({"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])}, lin=linear)
def unused_input(self: Any, x: Tensor, y: Tensor, z: Any = None, scale: float = 2.0) -> Any:
    return self.lin(x) * scale


@function({"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])}, lin=linear)
def positional_only(self: Any, x: Tensor, /, y: Tensor) -> Any:
    return self.lin(x) - y


@function({"y": ("float32", ["b", 6]), "x": ("float32", ["b", 6])}, lin=linear)
def keyword_only(self: Any, x: Tensor, *, y: Tensor) -> Any:
    return self.lin(x) - y


@function({"x": ("float32", ["b", 6]), "extra": ("float32", ["b", 6])}, lin=linear)
def var_keywords(self: Any, x: Tensor, **others: Tensor) -> Any:
    return self.lin(x) - others["extra"]


@function({"x": ("float32", ["b", 6]), "y": ("float32", ["b", 6])})
def all_positional_only(self: Any, y: Tensor, x: Tensor, /) -> Any:
    return x - y * 2
