"""A picture and a text in a tower each, fused by attention of the text to the picture's patches.

The fusion is that of ALBEF and BLIP (Li et al. 2021, 2022): the text reads every patch, so the
picture's whole sequence reaches the fusion point.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from genie.testing.weights import fill_

WIDTH, HEADS, PATCH, PICTURE = 768, 12, 14, 224
WORDS, TEXT = 8192, 48


class Attention(nn.Module):
    """Attention of `x` to `source`, float32[batch, n, WIDTH] both."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend."""
        query, key, value = (
            layer(given).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, given in ((self.query, x), (self.key, source), (self.value, source))
        )
        mixed = scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Layer(nn.Module):
    """A pre-norm transformer layer; it attends to itself, or to `source`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """float32[batch, n, WIDTH] to the same."""
        y = self.norm1(x)
        x = x + self.attention(y, y if source is None else source)
        result: Tensor = x + self.down(self.act(self.up(self.norm2(x))))
        return result


class Picture(nn.Module):
    """float32[batch, 3, 224, 224] to patches float32[batch, 256, WIDTH]."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(torch.zeros(1, (PICTURE // PATCH) ** 2, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, picture: Tensor) -> Tensor:
        """Encode."""
        x = self.patches(picture).flatten(2).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        result: Tensor = x
        return result


class Text(nn.Module):
    """int64[batch, 48] to float32[batch, 48, WIDTH]."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.zeros(1, TEXT, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, ids: Tensor) -> Tensor:
        """Encode."""
        x = self.words(ids) + self.places
        for layer in self.layers:
            x = layer(x)
        result: Tensor = x
        return result


class Answer(nn.Module):
    """The fusion point and the head: logits float32[batch, answers]."""

    def __init__(self, layers: int, answers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, answers)

    def forward(self, text: Tensor, picture: Tensor) -> Tensor:
        """Fuse."""
        for layer in self.layers:
            text = layer(text, picture)
        result: Tensor = self.head(self.norm(text)[:, 0])
        return result


class Answerer(nn.Module):
    """Picture and question to answers."""

    def __init__(self, layers: int, answers: int) -> None:
        super().__init__()
        self.picture = Picture(layers)
        self.text = Text(layers)
        self.answer = Answer(layers, answers)

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        """float32[batch, answers]."""
        patches = self.picture(picture)
        result: Tensor = self.answer(self.text(question), patches)
        return result


def build(layers: int = 2, answers: int = 1000) -> nn.Module:
    """50 M parameters."""
    return fill_(Answerer(layers, answers)).eval()
