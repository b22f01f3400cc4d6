"""Operators that are awkward in a graph, and models of the usual kinds."""

# Written as users write models, who annotate nothing of torch's.
# mypy: disable-error-code="no-any-return,operator,no-untyped-call,call-overload"
# mypy: disable-error-code="list-item,dict-item"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.capture.compiling import with_forward
from tests.capture.zoo.cases import IMAGE, SEQUENCE, TOKENS, VECTOR, case, function, linear


@function(VECTOR)
def several_results(self: Any, x: Tensor) -> Any:
    values, _ = x.topk(3, 1)
    _, where = x.max(1)
    a, _, c = x.split([1, 2, 3], 1)
    first, *_ = x.unbind(1)
    _, high = torch.aminmax(x)
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
        functional.scaled_dot_product_attention(q, q, q),
        functional.scaled_dot_product_attention(q, q, q, is_causal=True),
        functional.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(5, 5).tril() > 0),
        functional.scaled_dot_product_attention(q, q, q, attn_mask=bias, scale=0.3),
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
    grid = functional.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), [x.shape[0], 3, 4, 4])
    return (
        functional.interpolate(x, scale_factor=2, mode="nearest"),
        functional.interpolate(x, size=(5, 7), mode="bilinear", align_corners=False),
        functional.interpolate(x, size=(4, 4), mode="bicubic", antialias=True),
        functional.grid_sample(x, grid, align_corners=False),
        functional.pad(x, (1, 2, 3, 4)),
        functional.pad(x, (1, 1, 1, 1), mode="circular"),
        functional.unfold(x, 3).shape[0] * x[0, 0, 0, 0],
        functional.avg_pool2d(x, 2, count_include_pad=False),
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
            hot = functional.one_hot(ids, 12)
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
    y = functional.dropout(self.lin(x), 0.5, self.training)
    y = functional.dropout(y, 0.0, True) + functional.alpha_dropout(x, 0.5, False)
    return functional.dropout(y, 0.3, training=False, inplace=True)
