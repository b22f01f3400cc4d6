"""The families of transformers: one a folder of its models, built small and without the hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from tests.compat.inputs import Input
from tests.compat.small import small

LARGEST = 24_000_000
"""Parameters of the largest model that still counts as small."""

GIVEN: dict[str, dict[str, Any]] = {}
"""Family → fields of its configuration for which the rules of `tests.compat.small` do not do."""


class TooLarge(Exception):
    """The rules leave the configuration too large to be tried."""


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """Model types, one for each folder of transformers/models that AutoModel knows."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    folders: dict[str, list[str]] = {}
    for kind in MODEL_MAPPING_NAMES:
        folders.setdefault(CONFIG_MAPPING[kind].__module__.split(".")[2], []).append(kind)
    chosen = []
    for kinds in folders.values():
        parts = {p for k in kinds for p in CONFIG_MAPPING[k].sub_configs.values()}
        chosen.append(next((k for k in kinds if CONFIG_MAPPING[k] not in parts), kinds[0]))
    return tuple(sorted(chosen))


def build(name: str, style: Mapping[str, int]) -> tuple[nn.Module, Any]:
    """The family's model with random weights, and its configuration in a style of `STYLES`.

    Raises TooLarge, and whatever transformers raises where the configuration does not fit.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    config = small(CONFIG_MAPPING[name], style, **GIVEN.get(name, {}))
    kind: Any = MODEL_MAPPING[type(config)]
    kind = kind[0] if isinstance(kind, list | tuple) else kind
    count = _count(kind, config)
    if count > LARGEST:
        raise TooLarge(f"its small configuration still has {count:,} parameters")
    torch.manual_seed(0)
    return kind(config).eval(), config


def _count(kind: Any, config: Any) -> int:
    """Parameters, counted without memory where the class can be built so; else 0."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in kind(config).parameters())
    except Exception:
        return 0


def group_of(inputs: Mapping[str, Input]) -> str:
    """What a family works on, by the inputs that its forward takes."""
    text = any(name.endswith("input_ids") or name == "bbox" for name in inputs)
    sight = any(name.startswith(("pixel", "flattened")) for name in inputs)
    sound = any(name in ("input_features", "input_values", "spectrogram") for name in inputs)
    if (sight and "input_ids" in inputs) or (sound and "input_ids" in inputs):
        return "multi-modal"
    if sight:
        return "vision"
    if sound:
        return "audio"
    return "text" if text or "inputs_embeds" in inputs else "time series"
