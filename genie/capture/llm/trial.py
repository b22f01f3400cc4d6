"""A language model tried before it is captured: what it keeps, and whether that serves it.

Both run the model on a few tokens. The second compares logits with and without the cache, for
prompts of unequal lengths: a model whose positions or masks do not fit a cache of fixed length
shows here, and not in the tokens that a plan generates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genie.capture.llm.limits import Layer
from genie.capture.llm.models import CachedModel
from genie.capture.llm.store import Buffers, Decode, Prefill
from genie_schemas.errors import GenieError, Place
from genie_schemas.errors.user_code import error_text

__all__ = ["check_cache", "learn_layers", "new_buffers"]

_LENGTHS = (5, 3)
_STEPS = 3
_LONGEST = 1 << 14
"""Caches longer than this are tried at this length."""
_WITHIN = {torch.float32: 1e-3, torch.float64: 1e-6}
_WITHIN_HALF = 0.1
"""How far logits may lie apart, as a part of the largest: rounding, and no more."""


def learn_layers(model: CachedModel, place: Place) -> list[Layer]:
    """What each layer keeps of a token. Raises GenieError GEN0241 when it is no keys and values."""
    store = Prefill(_tokens(1, 2), torch.tensor([2]), None)
    try:
        with torch.no_grad():
            model.cached(_tokens(1, 2), store)
    except Exception as error:
        raise _refused(error_text(error) or type(error).__name__, place) from error
    if not store.seen:
        raise _refused("its forward keeps nothing in the cache that it is given", place)
    if sorted(store.seen) != list(range(len(store.seen))):
        kept = ", ".join(map(str, sorted(store.seen)))
        raise _refused(f"it keeps layers {kept}: layers count from 0, without a gap", place)
    layers = []
    for _, (key, value) in sorted(store.seen.items()):
        fits = key.dim() == value.dim() == 4 and key.shape[:3] == value.shape[:3]
        if not fits or key.shape[0] != 1 or key.shape[2] != 2 or key.dtype != value.dtype:
            shapes = f"{list(key.shape)} and {list(value.shape)}"
            what = f"keys and values of 2 tokens are {shapes}, not [batch, heads, tokens, width]"
            raise _refused(what, place)
        layers.append(Layer(key.shape[1], key.shape[3], value.shape[3], key.dtype))
    return layers


def new_buffers(layers: list[Layer], batch: int, cache: int) -> Buffers:
    """An empty cache."""
    return [
        (
            torch.zeros(batch, each.heads, cache, each.key, dtype=each.dtype),
            torch.zeros(batch, each.heads, cache, each.value, dtype=each.dtype),
        )
        for each in layers
    ]


def check_cache(model: CachedModel, layers: list[Layer], cache: int, place: Place) -> None:
    """Compare logits with and without the cache. Raises GenieError GEN0241, GEN0243."""
    cache = min(cache, _LONGEST)
    lengths = torch.tensor([min(n, max(1, cache - _STEPS)) for n in _LENGTHS])
    steps = min(_STEPS, cache - int(lengths.max()))
    count = int(lengths.max())
    tokens = _tokens(len(lengths), count + steps)
    try:
        with torch.no_grad():
            wanted = [
                model.plain(tokens[i : i + 1, : int(n) + steps])[0] for i, n in enumerate(lengths)
            ]
            found = _with_cache(
                model, tokens, lengths, steps, new_buffers(layers, len(lengths), cache)
            )
    except Exception as error:
        raise _refused(error_text(error) or type(error).__name__, place) from error
    scale = max(float(w.abs().max()) for w in wanted)
    apart = max(
        float((found[step][row] - wanted[row][int(n) - 1 + step]).abs().max())
        for row, n in enumerate(lengths)
        for step in range(steps + 1)
    )
    within = _WITHIN.get(wanted[0].dtype, _WITHIN_HALF)
    if not apart <= within * scale:
        raise GenieError(
            "GEN0243",
            "with the cache, the model computes other logits than without it",
            place,
            f"they differ by {apart:.3g}, where the largest is {scale:.3g}",
            "its positions or masks do not fit a cache of fixed length: compile the forward, with "
            "inputs in the spec",
        )


def _with_cache(
    model: CachedModel, tokens: Tensor, lengths: Tensor, steps: int, buffers: Buffers
) -> list[Tensor]:
    """Logits [batch, vocabulary] after the prompts and after each further token."""
    prompts = tokens[:, : int(lengths.max())]
    found = [last_logits(model.cached(prompts, store := Prefill(prompts, lengths, buffers)), store)]
    for step in range(steps):
        at = lengths + step
        token = tokens.gather(1, at[:, None])
        found.append(last_logits(model.cached(token, decode := Decode(at, buffers)), decode))
    return found


def last_logits(logits: Tensor, store: Prefill | Decode) -> Tensor:
    """f32[batch, vocabulary]: those of the last token, where the model gave more of them."""
    if logits.dim() != 3:
        raise TypeError(f"logits of {logits.dim()} dimensions; [batch, tokens, vocabulary] it is")
    if logits.shape[1] != 1:
        logits = store.last(logits)
    return logits[:, 0].to(torch.float32) if logits.dtype != torch.float32 else logits[:, 0]


def _tokens(batch: int, count: int) -> Tensor:
    """Small token ids, other ones in each row, which every vocabulary has."""
    return (torch.arange(count)[None, :] + torch.arange(batch)[:, None] * 2 + 1) % 5


def _refused(cause: str, place: Place) -> GenieError:
    return GenieError(
        "GEN0241",
        "the model's forward does not work with a cache of keys and values",
        place,
        cause,
        "follow the protocol in docs/llm.md, or compile the forward, with inputs in the spec",
    )
