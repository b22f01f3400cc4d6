"""Sizes that follow from dimensions, and every dtype."""

# Written as users write models, who annotate nothing of torch's.
# mypy: disable-error-code="no-any-return,operator,no-untyped-call,call-overload"
# mypy: disable-error-code="list-item,dict-item"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.capture.zoo.cases import VECTOR, function, linear

GRID: dict[str, Any] = {"x": ("float32", ["b", "n", 6])}


@function(GRID, lin=linear)
def symbolic_shapes(self: Any, x: Tensor) -> Any:
    b, n, c = x.shape
    y = self.lin(x).view(b * n, c)
    steps = torch.arange(b * n, dtype=torch.float32)
    y = y + steps[:, None] / n
    z = y.reshape(b, n, 2, 3).permute(0, 2, 1, 3)
    mask = torch.ones(n, n).tril()
    return z, y.view(b, -1), x.new_zeros(b, n + 1), mask, x.sum() / b, torch.full((b,), n)


@function(GRID)
def slices_by_size(self: Any, x: Tensor) -> Any:
    n = x.shape[1]
    line = torch.arange(64.0)[None, :n]
    return x[:, : n - 2], x[:, 1:], x[:, -1], x[:, :n, None] + line[..., None, None]


@function(GRID)
def cat_along_batch(self: Any, x: Tensor) -> Any:
    y = torch.cat([x, x * 2, x[:1]], 0)
    return y, y.repeat(1, 2, 1), torch.stack([x, x], 1), y.flatten(0, 1)


@function({"x": ("float32", ["b", 4]), "y": ("float32", [3, "b"]), "z": ("float32", ["b"])})
def one_dim_in_three_inputs(self: Any, x: Tensor, y: Tensor, z: Tensor) -> Any:
    return x.t() @ torch.diag(z) @ x, y * z, z.expand(2, -1)


@function({"x": ("float32", [2, 6])})
def no_dims(self: Any, x: Tensor) -> Any:
    return x.view(3, 4)


@function({"x": ("float32", []), "n": ("int64", [])})
def scalars(self: Any, x: Tensor, n: Tensor) -> Any:
    return x * n, x.exp(), n + 1, torch.stack([x, x * 2]).sum()


@function(VECTOR)
def empty_tensors(self: Any, x: Tensor) -> Any:
    e = x[:, :0]
    return e, torch.cat([e, x], 1), e.sum(1), x.new_zeros(0), torch.cat([x, x.new_zeros(0, 6)])


@function({"x": ("float32", ["b", "n"])})
def min_max_sizes(self: Any, x: Tensor) -> Any:
    b, n = x.shape
    pad = functional.pad(x, (1, n % 3 + 1))
    return pad, x.unfold(1, 1, 1), x.reshape(-1)[: max(b, n)], x.view(-1)[::2]


@function({"x": ("float32", ["I", "E"]), "lambda_": ("float32", ["E"])})
def dims_named_like_sympy(self: Any, x: Tensor, lambda_: Tensor) -> Any:
    return x * lambda_ + x.shape[0] * 2, x.reshape(-1)


def _dtype_case(dtype: str) -> None:
    inputs = {"x": {"dtype": dtype, "shape": ["b", 6]}}
    if "int" in dtype:
        inputs["x"] |= {"low": 0, "high": 9}

    def forward(self: Any, x: Tensor) -> Any:
        y = x + x
        y[:, :2] = 1
        small = y.to(torch.int8), y.to(torch.uint8), y.to(torch.float16), y.to(torch.bfloat16)
        return y, x.sum(), x.float().softmax(1).to(x.dtype), *small, x.view(-1, 2, 3), (x > 0)

    forward.__name__ = f"dtype_{dtype}"
    function(inputs)(forward)


for _name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split():
    _dtype_case(_name)


@function(VECTOR)
def complex_numbers(self: Any, x: Tensor) -> Any:
    z = torch.complex(x, x * 2)
    w = torch.fft.fft(x)
    return z.abs(), (z * 2j).real, w, torch.view_as_real(z), z.conj() * w, w.to(torch.complex128)


@function(VECTOR)
def unsigned_and_small_floats(self: Any, x: Tensor) -> Any:
    y = x.abs().to(torch.uint16)
    return y.to(torch.int64), x.to(torch.float8_e4m3fn), x.to(torch.float8_e5m2).float(), y


@function(VECTOR)
def special_scalars(self: Any, x: Tensor) -> Any:
    y = x.masked_fill(x > 0, float("-inf")).clamp(min=-1e30, max=float("inf"))
    big = (x * 0).to(torch.int64) + 2**62 + torch.tensor(-(2**63))
    return y, x * float("nan"), torch.full((2,), -0.0), x + 1e-45, big, x.sum() * 1e38
