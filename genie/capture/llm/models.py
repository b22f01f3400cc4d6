"""What a language model must offer to be compiled with a cache, and the two ways to offer it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genie.capture.llm.store import Store

__all__ = ["CachedModel", "Own", "Tokens", "adapt"]


@dataclass(frozen=True)
class Tokens:
    """A model's special tokens: sequences end with one of `eos`; `pad` fills ended rows."""

    eos: tuple[int, ...]
    pad: int


class CachedModel(Protocol):
    """A language model as the capture calls it. Logits are dtype[batch, tokens, vocabulary]."""

    @property
    def limit(self) -> int | None:
        """How many positions the model tells apart; None where it says nothing."""
        ...

    @property
    def special(self) -> Tokens:
        """Its special tokens."""
        ...

    def plain(self, tokens: Tensor) -> Tensor:
        """The forward without a cache on i64[batch, tokens]."""
        ...

    def cached(self, tokens: Tensor, store: Store) -> Tensor:
        """The forward with a cache; logits of each row's last token alone where it can."""
        ...


def adapt(model: nn.Module) -> CachedModel | None:
    """The model by the interface that it follows; None when it follows none."""
    parameters = inspect.signature(model.forward).parameters
    if "cache" in parameters and parameters["cache"].default is None:
        return Own(model)
    if "past_key_values" in parameters and "use_cache" in parameters and _is_transformers(model):
        from genie.capture.llm.transformers import Transformers

        return Transformers(model)
    return None


def _is_transformers(model: nn.Module) -> bool:
    """Whether its library has been imported, and the module is one of it."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


class Own:
    """A module that follows the protocol of `docs/llm.md`: forward(tokens, cache=None)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward = model.forward

    @property
    def limit(self) -> int | None:
        """`max_positions` of the module."""
        found = getattr(self.model, "max_positions", None)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    @property
    def special(self) -> Tokens:
        """`eos_token_ids` and `pad_token_id` of the module; none, and 0."""
        return special(
            getattr(self.model, "eos_token_ids", None), getattr(self.model, "pad_token_id", None)
        )

    def plain(self, tokens: Tensor) -> Tensor:
        """forward(tokens)."""
        return logits_of(self.forward(tokens))

    def cached(self, tokens: Tensor, store: Store) -> Tensor:
        """forward(tokens, cache=store)."""
        return logits_of(self.forward(tokens, cache=store))


def special(eos: Any, pad: Any) -> Tokens:
    """Special tokens from a number, several, or None; the first eos pads if nothing else does."""
    several = list(eos) if isinstance(eos, Sequence) else [eos]
    ends = tuple(dict.fromkeys(int(e) for e in several if e is not None and int(e) >= 0))
    if pad is None or int(pad) < 0:
        pad = ends[0] if ends else 0
    return Tokens(ends, int(pad))


def logits_of(result: Any) -> Tensor:
    """The logits of what a forward returned: itself, its `logits`, or the first of a tuple."""
    found = getattr(result, "logits", result)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"forward returns no logits but {type(result).__name__}")
    return found
