"""transformers' causal language models over a `Store`: their cache class, masks and positions.

The models build their masks through transformers' mask interface, from a predicate on positions
(causal, within a window, within a chunk). While one is called here, that interface evaluates the
predicate for the store's positions, which differ from row to row. So no kind of mask needs to be
known by name.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations import sdpa_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function

from genie.capture.encode import Unsupported
from genie.capture.llm.models import Tokens, logits_of, special
from genie.capture.llm.store import Decode, Prefill, Store

__all__ = ["Transformers"]


class Transformers:
    """A causal language model with transformers' `past_key_values`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward = model.forward
        self.parameters = frozenset(inspect.signature(model.forward).parameters)

    @property
    def limit(self) -> int | None:
        """The configuration's number of positions."""
        config = getattr(self.model, "config", None)
        found = getattr(config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    @property
    def special(self) -> Tokens:
        """Those of the generation configuration."""
        config = getattr(self.model, "generation_config", None)
        return special(getattr(config, "eos_token_id", None), getattr(config, "pad_token_id", None))

    def plain(self, tokens: Tensor) -> Tensor:
        """The forward without a cache."""
        with _quiet():
            return logits_of(self.forward(tokens, **self._given(use_cache=False)))

    def cached(self, tokens: Tensor, store: Store) -> Tensor:
        """The forward with the store as its cache."""
        given = self._given(
            use_cache=True, past_key_values=_Cache(store), position_ids=store.positions
        )
        with _quiet(), _masks(store), _last(self.model, store), _grouped():
            return logits_of(self.forward(tokens, **given))

    def _given(self, **arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name in self.parameters}


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of the store."""

    is_sliding = False

    def __init__(self, store: Store, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.store, self.layer = store, layer
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the store is there."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The store's."""
        return self.store.update(self.layer, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All keys, from the first on."""
        return self.store.keys, 0

    def get_seq_length(self) -> int:
        """What together with the new tokens makes the number of keys."""
        return self.store.keys - self.store.positions.shape[1]

    def get_max_length(self) -> int:
        """All keys."""
        return self.store.keys


class _Layers(list[Any]):
    """Layers that are there as soon as a model asks for them."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def __getitem__(self, index: Any) -> Any:
        while isinstance(index, int) and len(self) <= index:
            self.append(_Layer(self.store, len(self)))
        return super().__getitem__(index)


class _Cache(Cache):
    """transformers' cache over a store."""

    def __init__(self, store: Store) -> None:
        super().__init__(layers=_Layers(store))
        self.layers[max(0, store.layers - 1)]


@contextmanager
def _masks(store: Store) -> Iterator[None]:
    """Let models' masks be made for the store's positions."""
    mapping = ALL_MASK_ATTENTION_FUNCTIONS._local_mapping
    before = dict(mapping)
    mapping["sdpa"] = _mask_maker(store, additive=False)
    mapping["eager"] = _mask_maker(store, additive=True)
    try:
        yield
    finally:
        mapping.clear()
        mapping.update(before)


def _mask_maker(store: Store, *, additive: bool) -> Callable[..., Tensor | None]:
    """A mask interface of transformers': bool[batch, 1, tokens, keys], or what to add."""

    def make(
        *,
        mask_function: Callable[..., Any] = causal_mask_function,
        allow_is_causal_skip: bool = True,
        use_vmap: bool = False,
        dtype: torch.dtype = torch.float32,
        **others: Any,
    ) -> Tensor | None:
        if use_vmap:
            raise Unsupported("the model combines its causal mask with another one")
        # A mask over padding, that some models make for themselves, says nothing: none was given.
        causal = mask_function is causal_mask_function
        if causal and allow_is_causal_skip and not additive and isinstance(store, Prefill):
            return None  # the kernel's own causal mask: padding stands behind what is real
        batch, tokens = store.positions.shape
        device = store.positions.device
        rows = torch.arange(batch, device=device)[:, None, None, None]
        heads = torch.arange(1, device=device)[None, :, None, None]
        keys = torch.arange(store.keys, device=device)[None, None, None, :]
        allowed: Tensor = mask_function(rows, heads, store.positions[:, None, :, None], keys)
        allowed = allowed.expand(batch, 1, tokens, store.keys)
        if not additive:
            return allowed
        least = torch.finfo(dtype).min
        none = torch.zeros((), dtype=dtype, device=device)
        return torch.where(allowed, none, least)

    return make


@contextmanager
def _last(model: nn.Module, store: Store) -> Iterator[None]:
    """Let the output layer see each row's last token alone."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    if not isinstance(head, nn.Module) or isinstance(store, Decode):
        yield
        return

    def trim(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden = given[0] if given else None
        if isinstance(hidden, Tensor) and hidden.dim() == 3:
            return (store.last(hidden), *given[1:])
        return None

    handle = head.register_forward_pre_hook(trim)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _grouped() -> Iterator[None]:
    """Let one token's queries share their group's keys, as they do in eager decoding.

    While a compiler looks on, the library writes the keys and values out for each query head: with
    a whole cache of them that would be most of what a token costs.
    """
    name = "is_torchdynamo_compiling"
    before = getattr(sdpa_attention, name, None)
    if before is None:
        yield
        return
    setattr(sdpa_attention, name, lambda: False)
    try:
        yield
    finally:
        setattr(sdpa_attention, name, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' advice on padding: padding stands on the right here, and is masked."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
