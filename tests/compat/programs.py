"""Programs of torch beyond transformers: control flow, state, dtypes, views.

Each is a forward of the tensors `x` (and others that its inputs name) that returns a dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional

from genie.client import Session
from tests.compat.attempt import Outcome, attempt_model
from tests.compat.inputs import Input, floats, ids

Case = tuple[nn.Module, dict[str, Input]]
Forward = Callable[..., Any]
PROGRAMS: dict[str, Callable[[], Case]] = {}
X = {"x": floats(6)}


class Program(nn.Module):
    """A forward with the parts that it uses."""

    def __init__(self, forward: Forward, parts: dict[str, Any]) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.call = forward

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        found = self.call(self, **inputs)
        if isinstance(found, Tensor):
            return {"output": found}
        return {f"output.{i}": value for i, value in enumerate(found)}


def program(
    inputs: dict[str, Input] = X, train: bool = False, **parts: Callable[[], Any]
) -> Callable[[Forward], Forward]:
    """Register a forward; `parts` make its submodules, parameters and buffers."""

    def register(forward: Forward) -> Forward:
        def build() -> Case:
            torch.manual_seed(0)
            model = Program(forward, {name: make() for name, make in parts.items()})
            return model.train(train), inputs

        PROGRAMS[forward.__name__] = build
        return forward

    return register


def linear() -> nn.Linear:
    return nn.Linear(6, 6)


def attempt_program(name: str, session: Session) -> Outcome:
    """One of `PROGRAMS`."""
    model, inputs = PROGRAMS[name]()
    return attempt_model(name, "program", model, inputs, session)


# -- control flow ------------------------------------------------------------------------------


@program(a=linear, b=linear)
def cond(self: Any, x: Tensor) -> Any:
    rows = x.shape[0]
    ramp = torch.arange(rows, dtype=x.dtype)[:, None]
    return torch.cond(x.sum() > 0, lambda y: self.a(y) + 1, lambda y: self.b(y).relu() * ramp, (x,))


@program(a=linear)
def cond_in_cond(self: Any, x: Tensor) -> Any:
    def inner(y: Tensor) -> Tensor:
        return torch.cond(y.max() > 1, lambda z: z * 2, lambda z: self.a(z), (y,))

    return torch.cond(x.sum() > 0, inner, lambda y: y.neg(), (x,))


@program(a=linear)
def cond_with_in_place_branch(self: Any, x: Tensor) -> Any:
    def branch(y: Tensor) -> Tensor:
        z = self.a(y)
        z.relu_()
        z[:, 0].add_(1)
        return z

    found = torch.cond(x.mean() > 0, branch, lambda y: y.clone(), (x,))
    return found * 2, found[:, :2]


@program(a=linear)
def while_loop_of_layers(self: Any, x: Tensor) -> Any:
    def body(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return i + 1, torch.tanh(self.a(y))

    return while_loop(lambda i, y: i < 5, body, (torch.zeros((), dtype=torch.int64), x))


@program()
def while_loop_until_small(self: Any, x: Tensor) -> Any:
    return while_loop(lambda y: y.abs().max() > 0.1, lambda y: (y * 0.5,), (x,))


@program()
def while_loop_without_a_turn(self: Any, x: Tensor) -> Any:
    return while_loop(lambda y: y.sum() > 1e9, lambda y: (y + 1,), (x,))


@program({"x": floats(4, 6)}, a=linear)
def scan_as_recurrent_layer(self: Any, x: Tensor) -> Any:
    def step(state: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.a(state) + item)
        return state, state * 2

    return scan(step, x[:, 0] * 0, x, dim=1)


@program({"x": floats(4, 6)})
def scan_in_reverse(self: Any, x: Tensor) -> Any:
    return scan(lambda c, item: (c + item, c * item), x[:, 0] * 1, x, dim=1, reverse=True)


@program()
def no_grad_region_in_branch(self: Any, x: Tensor) -> Any:
    def branch(y: Tensor) -> Tensor:
        with torch.no_grad():
            return y.sin()

    return torch.cond(x.sum() > 0, branch, lambda y: y.cos(), (x,))


# -- state -------------------------------------------------------------------------------------


@program(
    {"x": floats(3, 8, 8)},
    train=True,
    net=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
)
def batch_norm_in_training(self: Any, x: Tensor) -> Any:
    return self.net(x)


@program({"x": floats(4, 8)}, train=True, norm=lambda: nn.BatchNorm1d(4, momentum=None))
def batch_norm_with_cumulative_average(self: Any, x: Tensor) -> Any:
    return self.norm(x)


@program(train=True, norm=lambda: nn.InstanceNorm1d(6, track_running_stats=True))
def instance_norm_in_training(self: Any, x: Tensor) -> Any:
    return self.norm(x.unsqueeze(-1).expand(-1, -1, 3).contiguous())


@program(count=lambda: torch.zeros(6), other=lambda: torch.zeros(6))
def counting_buffers(self: Any, x: Tensor) -> Any:
    self.count.add_(1)
    self.other = self.other + self.count
    return x + self.count, x * self.other


@program(cache=lambda: torch.zeros(8, 6))
def key_value_cache_in_a_buffer(self: Any, x: Tensor) -> Any:
    self.cache[2:3].copy_(x.mean(0, keepdim=True))
    self.cache.narrow(0, 5, 1).add_(x.sum(0))
    return x @ self.cache.t()


@program(w=lambda: nn.Parameter(torch.ones(2, 6)))
def parameter_through_a_view(self: Any, x: Tensor) -> Any:
    with torch.no_grad():
        self.w[0].mul_(2)
    return x + self.w[0]


# -- aliasing ----------------------------------------------------------------------------------


@program(a=linear)
def in_place(self: Any, x: Tensor) -> Any:
    y = self.a(x)
    y.relu_().mul_(2)
    y += 1
    y[:, 1] = x[:, 0]
    return y, y.sigmoid_()


@program()
def input_written(self: Any, x: Tensor) -> Any:
    x.add_(1)
    return x * 2, x


@program()
def views(self: Any, x: Tensor) -> Any:
    y = x * 1
    left, right = y.chunk(2, dim=1)
    left.add_(1)
    return y.t(), right.flip(0), y.unfold(1, 3, 2), y.view(-1, 2, 3).transpose(1, 2), y[:, ::2]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 8)
        self.mid = nn.Linear(8, 8)
        self.head = nn.Linear(8, 100, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(self.mid(self.words(ids)))
        return found


@program({"ids": ids(5)}, net=Tied)
def tied_weights(self: Any, ids: Tensor) -> Any:
    return self.net(ids)


# -- masks and sizes ---------------------------------------------------------------------------


@program({"x": floats(4, 6)})
def boolean_masks(self: Any, x: Tensor) -> Any:
    keep = x > 0
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    found = functional.scaled_dot_product_attention(x, x, x, attn_mask=causal)
    return x.masked_fill(~keep, -1.0), torch.where(keep, x, found), keep.logical_xor(keep.flip(1))


@program()
def boolean_mask_assigned(self: Any, x: Tensor) -> Any:
    y = x.clone()
    y[x > 0] = 0.5
    return y


@program()
def boolean_mask_selected_in_bounds(self: Any, x: Tensor) -> Any:
    order = (x[:, 0] > 0).to(torch.int64).argsort(descending=True, stable=True)
    return x[order], (x[:, 0] > 0).sum()


@program()
def size_from_data_within_bounds(self: Any, x: Tensor) -> Any:
    return torch.nonzero_static(x > 0, size=12, fill_value=-1)


@program()
def top_of_data(self: Any, x: Tensor) -> Any:
    values, indices = x.topk(3, dim=1)
    return values, indices, x.sort(dim=1, descending=True).values, x.cumsum(0)


# -- numbers -----------------------------------------------------------------------------------


@program({"x": floats(8)})
def complex_numbers(self: Any, x: Tensor) -> Any:
    spectrum = torch.fft.fft(x)
    turned = torch.view_as_complex(x.view(-1, 4, 2)) * (1 + 2j)
    return torch.view_as_real(turned), torch.fft.ifft(spectrum).real, spectrum.abs()


@program(c=lambda: torch.ones(6, dtype=torch.complex64) * 1j)
def complex_buffer(self: Any, x: Tensor) -> Any:
    return torch.view_as_real(x * self.c)


@program(c=lambda: torch.ones(6, dtype=torch.complex128) * (1 + 2j))
def wide_complex_buffer(self: Any, x: Tensor) -> Any:
    return torch.view_as_real(x * self.c)


@program(a=lambda: nn.Linear(6, 6).bfloat16())
def bfloat16_weights(self: Any, x: Tensor) -> Any:
    return self.a(x.bfloat16()), functional.softmax(self.a(x.bfloat16()).float(), -1)


@program(a=lambda: nn.Linear(6, 6).half())
def float16_weights(self: Any, x: Tensor) -> Any:
    return self.a(x.half())


@program({"x": {**floats(6), "dtype": "bfloat16"}}, a=lambda: nn.Linear(6, 6).bfloat16())
def bfloat16_inputs(self: Any, x: Tensor) -> Any:
    return self.a(x).relu()


@program(
    w=lambda: (torch.arange(36).view(6, 6) / 36 - 0.5).to(torch.float8_e4m3fn),
    v=lambda: (torch.arange(36).view(6, 6) / 36 - 0.5).to(torch.float8_e5m2),
)
def float8_weights(self: Any, x: Tensor) -> Any:
    narrow = x.to(torch.float8_e4m3fn)
    return x @ self.w.float(), x @ self.v.float(), narrow


@program(
    w=lambda: torch.arange(-18, 18, dtype=torch.int8).view(6, 6),
    scale=lambda: torch.full((6, 1), 0.125),
)
def int8_weights(self: Any, x: Tensor) -> Any:
    return functional.linear(x, self.w.to(x.dtype) * self.scale)


@program(
    {"x": floats(16)},
    w=lambda: torch.arange(-128, 128, dtype=torch.int64).to(torch.int8).view(16, 16),
    scale=lambda: torch.full((16,), 0.125),
)
def int8_dynamic_linear(self: Any, x: Tensor) -> Any:
    step = x.abs().amax(1, keepdim=True) / 127
    rounded = (x / step).round().clamp(-128, 127).to(torch.int8)
    found = torch._int_mm(rounded, self.w.t())
    return found.to(x.dtype) * step * self.scale


@program(
    {"x": floats(32)},
    w=lambda: (
        torch.arange(-512, 512, dtype=torch.int64)
        .remainder(255)
        .sub(127)
        .to(torch.int8)
        .view(32, 32)
    ),
    scale=lambda: torch.full((32,), 0.125, dtype=torch.bfloat16),
)
def int8_packed_linear(self: Any, x: Tensor) -> Any:
    return torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.w, self.scale)


@program(a=linear)
def weight_observed_by_fake_quantisation(self: Any, x: Tensor) -> Any:
    w = self.a.weight
    scale = w.abs().max() / 127
    rounded = (w / scale).round().clamp(-128, 127)
    return functional.linear(x, rounded * scale, self.a.bias)


@program()
def linear_algebra(self: Any, x: Tensor) -> Any:
    square = x.t() @ x + torch.eye(6)
    return (
        torch.linalg.cholesky(square),
        torch.linalg.solve(square, x.t()),
        torch.linalg.det(square),
    )


@program({"x": floats(5, 6)}, net=lambda: nn.LSTM(6, 4, 2, bidirectional=True, batch_first=True))
def lstm(self: Any, x: Tensor) -> Any:
    found, (hidden, cell) = self.net(x)
    return found, hidden, cell


@program({"x": floats(5, 6)}, net=lambda: nn.GRU(6, 4, batch_first=True))
def gru(self: Any, x: Tensor) -> Any:
    return self.net(x)


@program(
    {"x": floats(5, 8)},
    net=lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
)
def transformer_encoder(self: Any, x: Tensor) -> Any:
    return self.net(x)
