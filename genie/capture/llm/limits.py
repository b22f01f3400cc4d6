"""How large the cache is: from the spec's `llm` section, else from the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genie_schemas.errors import GenieError, Place
from genie_schemas.spec import Llm

__all__ = ["Layer", "Limits", "limits"]

_DEFAULT_CACHE = 4096
_DEFAULT_PROMPT = 1024
_DEFAULT_BATCH = 8
_DEFAULT_BYTES = 1 << 30
"""Without a word in the spec, caches stay below these."""


@dataclass(frozen=True)
class Layer:
    """What a layer keeps of each token: keys and values of `heads` heads."""

    heads: int
    key: int
    value: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes a token."""
        return self.heads * (self.key + self.value) * self.dtype.itemsize


@dataclass(frozen=True)
class Limits:
    """Most tokens of a sequence and of a prompt, most sequences of a call."""

    cache: int
    prompt: int
    batch: int


def limits(llm: Llm, positions: int | None, layers: Sequence[Layer], spec: str) -> Limits:
    """The bounds of a model with so many positions; `spec` names the file for errors.

    Raises GenieError GEN0242 when the spec wants a longer cache than the model has positions, and
    GEN0127 when its prompts are longer than the cache that follows.
    """
    cache = llm.max_cache_len
    if cache is None:
        cache = min(positions or _DEFAULT_CACHE, _DEFAULT_CACHE)
    if positions is not None and cache > positions:
        raise GenieError(
            "GEN0242",
            f"a cache of {cache} tokens is longer than the model's {positions} positions",
            Place(file=spec, path="llm.max_cache_len"),
            "what lies beyond them the model cannot tell apart",
            f"lower llm.max_cache_len to {positions} or less",
        )
    prompt = llm.max_prompt_len
    if prompt is None:
        prompt = min(cache, _DEFAULT_PROMPT)
    if prompt > cache:
        raise GenieError(
            "GEN0127",
            f"prompts of {prompt} tokens do not fit a cache of {cache}",
            Place(file=spec, path="llm.max_prompt_len"),
            "the cache is as long as the model's positions" if positions else None,
            f"lower llm.max_prompt_len to {cache} or less",
        )
    return Limits(cache, prompt, llm.max_batch or _batch(cache, layers))


def _batch(cache: int, layers: Sequence[Layer]) -> int:
    row = cache * sum(layer.bytes for layer in layers)
    batch = _DEFAULT_BATCH
    while batch > 1 and batch * row > _DEFAULT_BYTES:
        batch //= 2
    return batch
