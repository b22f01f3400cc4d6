"""Torch's own modules, as torch.nn documents them: generic, without regions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.semantics.corpus.registry import add, floats

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
