"""Small modules that are awkward to capture, each with the inputs that its spec would name.

`ZOO` maps a name to a function that returns the module and its inputs; every one of them must
compile into a plan that equals eager execution bit for bit at several sizes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.capture.compiling import with_forward

Case = tuple[nn.Module, dict[str, Any]]

VECTOR: dict[str, Any] = {"x": ("float32", ["b", 6])}
IMAGE: dict[str, Any] = {"x": ("float32", ["b", 3, 8, 8])}
SEQUENCE: dict[str, Any] = {"x": ("float32", ["b", 5, 8])}
TOKENS: dict[str, Any] = {"ids": {"dtype": "int64", "shape": ["b", 5], "low": 0, "high": 12}}

ZOO: dict[str, Callable[[], Case]] = {}

DIMS: dict[str, dict[str, tuple[int, int]]] = {
    # A slice of size 1 at the traced size would be fixed to 1.
    "slices_by_size": {"n": (4, 9)},
    "min_max_sizes": {"n": (3, 9), "b": (2, 8)},
}
"""Ranges of dimensions other than 1 to 8."""


def case(inputs: dict[str, Any]) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Add the decorated builder to the zoo."""

    def add(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert build.__name__ not in ZOO
        ZOO[build.__name__] = lambda: (build(), inputs)
        return build

    return add


def function(inputs: dict[str, Any], **parts: Any) -> Callable[[Callable[..., Any]], Any]:
    """Add a forward with these submodules, parameters and buffers to the zoo."""

    def add(forward: Callable[..., Any]) -> Callable[..., Any]:
        assert forward.__name__ not in ZOO

        def build() -> Case:
            torch.manual_seed(0)
            made = {
                k: p() if callable(p) and not isinstance(p, Tensor) else p for k, p in parts.items()
            }
            return with_forward(forward, **made), inputs

        ZOO[forward.__name__] = build
        return forward

    return add


linear = functools.partial(nn.Linear, 6, 6)


# -- what forward returns ------------------------------------------------------------------------


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


# -- writing in place ----------------------------------------------------------------------------


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


# -- modules -------------------------------------------------------------------------------------


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
            return x + self.x + self.linear  # type: ignore[operator]

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
    return y.mean((2, 3)), y, y.flatten(1), F.adaptive_avg_pool2d(y, 2)


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


# -- sizes ---------------------------------------------------------------------------------------

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
    b, n, _ = x.shape
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
    pad = F.pad(x, (1, n % 3 + 1))
    return pad, x.unfold(1, 1, 1), x.reshape(-1)[: max(b, n)], x.view(-1)[::2]


@function({"x": ("float32", ["I", "E"]), "lambda_": ("float32", ["E"])})
def dims_named_like_sympy(self: Any, x: Tensor, lambda_: Tensor) -> Any:
    return x * lambda_ + x.shape[0] * 2, x.reshape(-1)


# -- dtypes --------------------------------------------------------------------------------------


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


# -- operators -----------------------------------------------------------------------------------


@function(VECTOR)
def several_results(self: Any, x: Tensor) -> Any:
    values, _ = x.topk(3, 1)
    _, where = x.max(1)
    a, _, c = x.split([1, 2, 3], 1)
    first, *_ = x.unbind(1)
    low, high = torch.aminmax(x)
    mean = torch.var_mean(x, 1)[1]
    return values, where, a, c, first, high, mean, x.sort(1).indices, x.cummax(1)[0]


@function(VECTOR)
def linear_algebra(self: Any, x: Tensor) -> Any:
    square = x[:, :, None] * x[:, None] + 6 * torch.eye(6)
    inverse, info = torch.linalg.inv_ex(square)
    q, _ = torch.linalg.qr(square)
    return inverse, info, q, torch.linalg.det(square), torch.cdist(x, x + 1), x.norm(dim=1)


@function(VECTOR)
def einsums(self: Any, x: Tensor) -> Any:
    y = torch.einsum("bi,bj->bij", x, x)
    z = torch.einsum("bij->bji", y)
    z.add_(1)
    return y, z, torch.einsum("bii->b", y), torch.einsum("...i,i->...", x, x[0])


@function(VECTOR)
def comparisons(self: Any, x: Tensor) -> Any:
    order = torch.where(x > 0, x, -x).argsort(1)
    return order, x.gather(1, order), (x == x).all(1), x.isnan().any(), torch.isin(x, x[:, 0])


@function(VECTOR)
def hidden_aliases(self: Any, x: Tensor) -> Any:
    # Each of these may return its operand itself.
    a = torch.atleast_2d(x)
    b, c = torch.broadcast_tensors(x * 2, x[:1] * 3)
    d = x.type_as(x).conj_physical().contiguous()
    y = x * 4
    e = y.sum_to_size(y.shape)
    y.add_(1)
    return a, b, c + d, e, y


@case(SEQUENCE)
def attention() -> nn.Module:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
            y, weights = self.attend(x, x, x, attn_mask=mask)
            return y, weights, self.attend(x, x, x, need_weights=False)[0]

    return Attention()


@function(SEQUENCE)
def scaled_dot_product(self: Any, x: Tensor) -> Any:
    q = x.view(x.shape[0], 5, 2, 4).transpose(1, 2)
    bias = x[0, :, :5]
    return (
        F.scaled_dot_product_attention(q, q, q),
        F.scaled_dot_product_attention(q, q, q, is_causal=True),
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(5, 5).tril() > 0),
        F.scaled_dot_product_attention(q, q, q, attn_mask=bias, scale=0.3),
    )


@case(SEQUENCE)
def transformer_encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=False)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return with_forward(lambda self, x: self.encoder(x), encoder=encoder)


@case(SEQUENCE)
def recurrent() -> nn.Module:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
            self.gru = nn.GRU(12, 5, batch_first=True)
            self.rnn = nn.RNN(5, 4, batch_first=True)
            self.cell = nn.GRUCell(4, 3)

        def forward(self, x: Tensor) -> Any:
            y, (hidden, _) = self.lstm(x)
            y, last = self.gru(y)
            y, _ = self.rnn(y)
            return y, hidden, last, self.cell(y[:, -1])

    torch.manual_seed(0)
    return Recurrent()


@case({"x": ("float32", ["b", 3, 9, 9])})
def vision_mix() -> nn.Module:
    torch.manual_seed(0)
    return with_forward(
        lambda self, x: self.net(x),
        net=nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.SiLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, groups=8, padding="same", padding_mode="reflect"),
            nn.GroupNorm(2, 8),
            nn.Hardswish(inplace=True),
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.PReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.LocalResponseNorm(2),
            nn.PixelShuffle(2),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.LayerNorm(4),
            nn.Dropout1d(0.2),
            nn.AlphaDropout(0.3),
            nn.Softmax(-1),
        ),
    )


@function(IMAGE)
def resampling(self: Any, x: Tensor) -> Any:
    grid = F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), [x.shape[0], 3, 4, 4])
    return (
        F.interpolate(x, scale_factor=2, mode="nearest"),
        F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=False),
        F.interpolate(x, size=(4, 4), mode="bicubic", antialias=True),
        F.grid_sample(x, grid, align_corners=False),
        F.pad(x, (1, 2, 3, 4)),
        F.pad(x, (1, 1, 1, 1), mode="circular"),
        F.unfold(x, 3).shape[0] * x[0, 0, 0, 0],
        F.avg_pool2d(x, 2, count_include_pad=False),
    )


@case(TOKENS)
def embeddings() -> nn.Module:
    class Embeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(12, 8, padding_idx=0)
            self.bags = nn.EmbeddingBag(12, 4, mode="mean")
            self.sums = nn.EmbeddingBag(12, 4, mode="sum", include_last_offset=True)

        def forward(self, ids: Tensor) -> Any:
            offsets = torch.arange(0, ids.numel() + 1, 5)
            hot = F.one_hot(ids, 12)
            return self.words(ids), self.bags(ids), self.sums(ids.reshape(-1), offsets), hot

    torch.manual_seed(0)
    return Embeddings()


@function(IMAGE, conv=lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
def weight_norm(self: Any, x: Tensor) -> Any:
    return self.conv(x)


@function(VECTOR, lin=lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)))
def spectral_norm(self: Any, x: Tensor) -> Any:
    return self.lin(x)


@function(VECTOR, lin=linear)
def mixed_gradient_modes(self: Any, x: Tensor) -> Any:
    with torch.no_grad():
        y = self.lin(x)
        y.relu_()
    with torch.inference_mode():
        z = x * 2
    with torch.enable_grad():
        w = y.detach() * 3
        with torch.no_grad():
            w.add_(y)
    return y, z + 1, w


@function(VECTOR, lin=linear)
def autocast_turned_off(self: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        y = self.lin(x.float())
        y.add_(1)
        angles = y.cos(), y.sin()
    return y, angles


@function(VECTOR)
def checks_on_values(self: Any, x: Tensor) -> Any:
    assert x.dim() == 2
    torch._check(x.shape[0] > 0)
    torch._assert(x.shape[1] == 6, "width")
    return x * 2


@function(VECTOR)
def strided(self: Any, x: Tensor) -> Any:
    y = x * 1
    return x.as_strided((2, 2), (1, 2)), y.as_strided((3,), (2,), 1), x.unfold(1, 3, 2)


@function(VECTOR, lin=linear)
def dropout_everywhere(self: Any, x: Tensor) -> Any:
    y = F.dropout(self.lin(x), 0.5, self.training)
    y = F.dropout(y, 0.0, True) + F.alpha_dropout(x, 0.5, False)
    return F.dropout(y, 0.3, training=False, inplace=True)
