"""Keys and values of one call: what a forward with a cache sees of the plan's states.

These classes are the cache protocol that `docs/llm.md` describes: a module of one's own is given a
`Store` and asks it for positions, masks, and the keys and values to attend to. The adapter for
transformers models works on the same interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Decode", "Prefill", "Store"]

Buffers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, each dtype[batch, kv_heads, max_cache_len, head_dim]."""


class Store(ABC):
    """The cache in one call of the forward.

    `positions` is i64[batch, tokens]: the place of each given token in its sequence.
    """

    positions: Tensor
    keys: int
    """How many keys `update` returns: a size, which may be symbolic."""
    layers: int
    """How many layers are known to keep something."""

    @abstractmethod
    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new tokens' keys and values; return those to attend to.

        All are dtype[batch, kv_heads, tokens, head_dim]; `layer` counts from 0.
        """

    def mask(self, window: int | None = None) -> Tensor:
        """bool[batch, 1, tokens, keys]: True where a token may attend to a key.

        With a `window`, a token attends to itself and to the `window - 1` tokens before it.
        """
        queries = self.positions[:, None, :, None]
        keys = torch.arange(self.keys, device=queries.device)[None, None, None, :]
        allowed = keys <= queries
        return allowed if window is None else allowed & (keys > queries - window)

    @abstractmethod
    def last(self, hidden: Tensor) -> Tensor:
        """dtype[batch, tokens, width] → [batch, 1, width]: each row's last real token.

        Called before the output layer, so that it computes one row of logits a sequence.
        """


class Prefill(Store):
    """The first call: whole prompts, padded on the right, into an empty cache."""

    def __init__(self, tokens: Tensor, lengths: Tensor, buffers: Buffers | None) -> None:
        batch, count = tokens.shape
        self.lengths = lengths
        self.buffers = buffers
        self.layers = len(buffers or ())
        self.places = torch.arange(count, device=tokens.device)
        self.positions = self.places[None, :].expand(batch, count)
        self.keys = count
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer → the keys and values that the forward gave."""

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write at 0 … tokens - 1; a prompt attends to itself alone."""
        self.seen[layer] = (key, value)
        if self.buffers is not None:
            # Not into a slice: whether that is contiguous, and with it the trace, would depend on
            # the prompt's length.
            keys, values = self.buffers[layer]
            keys.index_copy_(2, self.places, key)
            values.index_copy_(2, self.places, value)
        return key, value

    def last(self, hidden: Tensor) -> Tensor:
        """The token before the padding."""
        index = (self.lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, index)


class Decode(Store):
    """A later call: one new token a sequence, each at its own position."""

    def __init__(self, length: Tensor, buffers: Buffers) -> None:
        # A copy: where several devices work on one token, it is a value that travels.
        self.place = length.clone()
        self.rows = torch.arange(length.shape[0], device=length.device)
        self.buffers = buffers
        self.layers = len(buffers)
        self.positions = self.place[:, None]
        self.keys = buffers[0][0].shape[2]

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write each row at its length; attend to the whole buffers, of which the mask hides."""
        where = [self.rows, None, self.place]
        keys, values = self.buffers[layer]
        torch.ops.aten.index_put_(keys, where, key[:, :, 0])
        torch.ops.aten.index_put_(values, where, value[:, :, 0])
        return keys, values

    def last(self, hidden: Tensor) -> Tensor:
        """The one token."""
        return hidden
