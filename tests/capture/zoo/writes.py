"""Forwards that write in place: to values, views, inputs, copies of constants."""

# Written as users write models, who annotate nothing of torch's.
# mypy: disable-error-code="no-any-return,operator,no-untyped-call,call-overload"
# mypy: disable-error-code="list-item,dict-item"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.capture.zoo.cases import VECTOR, function, linear


@function(VECTOR, lin=linear)
def in_place_chain(self: Any, x: Tensor) -> Any:
    y = self.lin(x)
    y.relu_().add_(1).mul_(0.5)
    y[:, 2] = 9
    y[:, 3:5].copy_(x[:, :2])
    return y


@function(VECTOR)
def caller_keeps_its_input(self: Any, x: Tensor) -> Any:
    x.add_(1)
    y = x * 2
    x.mul_(3)
    return y, x, x + y


@function(VECTOR)
def input_written_through_view(self: Any, x: Tensor) -> Any:
    half = x[:, :3]
    rest = x[:, 3:]
    half.relu_()
    return x.sum(1), rest, half


@function(VECTOR)
def writes_by_index(self: Any, x: Tensor) -> Any:
    y = x.clone()
    index = torch.tensor([0, 2, 4])
    y.index_fill_(1, index, 5.0)
    y.index_add_(1, index, x[:, :3])
    y.index_copy_(1, torch.tensor([1]), x[:, 5:])
    y.index_put_((torch.tensor([0]), torch.tensor([5])), torch.tensor(8.0))
    y.scatter_(1, torch.zeros_like(y, dtype=torch.int64), 3.0)
    y.masked_fill_(x > 1, -1.0)
    return y


@function(VECTOR)
def augmented_assignment(self: Any, x: Tensor) -> Any:
    y = x + 0
    y += x
    y -= 1
    y *= 2
    y /= 3
    y **= 2
    m = x > 0
    m &= x < 1
    m |= x > 2
    m ^= x > 3
    return y, m


@function(VECTOR)
def metadata_in_place(self: Any, x: Tensor) -> Any:
    y = x * 2
    y.unsqueeze_(0)
    z = y + 1
    y.squeeze_(0)
    y.t_()
    y.transpose_(0, 1)
    y.add_(1)
    return y, z, y.sum(0)


@function(VECTOR)
def preallocated(self: Any, x: Tensor) -> Any:
    out = torch.zeros(x.shape[0], 4, 6)
    for i in range(4):
        out[:, i] = x * i
    buffer = x.new_empty(x.shape[0], 12)
    buffer[:, :6] = x
    buffer[:, 6:] = -x
    return out, buffer


@function(VECTOR)
def zero_and_fill(self: Any, x: Tensor) -> Any:
    y = torch.empty_like(x)
    y.zero_()
    z = torch.empty(x.shape[0], 2)
    z.fill_(3)
    return y + x, z, torch.full_like(x, 2.5), torch.ones(3).fill_(x.shape[0])


@function(VECTOR)
def views_of_views_written(self: Any, x: Tensor) -> Any:
    base = x * 1.5
    a = base.view(-1, 2, 3)
    b = a.transpose(1, 2)
    c = b[:, 1]
    before = base.sum(1)
    c.neg_()
    return base, a, b, c, before


@function(VECTOR)
def write_after_last_read(self: Any, x: Tensor) -> Any:
    y = x + 1
    z = y * 2
    y.zero_()
    return z


@function(VECTOR)
def contiguous_then_written(self: Any, x: Tensor) -> Any:
    # At one row the transposed input is contiguous, so that contiguous() is the input itself.
    y = x.t().contiguous()
    y.add_(1)
    return y


@function(VECTOR, table=torch.arange(6.0).reshape(1, 6))
def expanded_constant_written(self: Any, x: Tensor) -> Any:
    y = self.table.expand(x.shape[0] * 2, -1).contiguous()
    y.add_(x.repeat(2, 1))
    return y


@function(VECTOR, table=torch.arange(6.0).reshape(1, 6))
def reshaped_constant_written(self: Any, x: Tensor) -> Any:
    y = self.table.clone().expand(x.shape[0], 6).reshape(-1)
    y = y + x.reshape(-1)
    y.relu_()
    return y


@function(VECTOR)
def type_as_and_to(self: Any, x: Tensor) -> Any:
    y = x.type_as(x)
    z = (y * 1).to(torch.float32)
    z.add_(1)
    return z, y.double().float(), x.to(torch.bfloat16).to(x.dtype)


@function(VECTOR)
def write_with_broadcast(self: Any, x: Tensor) -> Any:
    y = torch.zeros(x.shape[0], 6)
    y += x[:1]
    y[:, ::2] = 4
    return y


@function(VECTOR)
def chunks_written(self: Any, x: Tensor) -> Any:
    y = x * 2
    a, b, c = y.chunk(3, 1)
    b.zero_()
    rows = y.unbind(1)
    rows[0].fill_(7)
    return y, a, c
