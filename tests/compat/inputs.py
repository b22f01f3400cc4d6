"""Inputs for a family's model: the first of the usual combinations that its forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.compat.small import IMAGE

Input = dict[str, Any]
BATCH, TEXT = "b", 8


def ids(length: int = TEXT) -> Input:
    return {"dtype": "int64", "shape": [BATCH, length], "low": 4, "high": 90}


def floats(*shape: int) -> Input:
    return {"dtype": "float32", "shape": [BATCH, *shape]}


def ones(*shape: int) -> Input:
    return {"dtype": "int64", "shape": [BATCH, *(shape or (TEXT,))], "low": 1, "high": 2}


def candidates(model: nn.Module, config: Any) -> Iterator[dict[str, Input]]:
    """Combinations of inputs by name, those that say most of the model first."""
    taken = set(inspect.signature(model.forward).parameters)
    size, channels = _image(config)
    mels = _field(config, "num_mel_bins", 16)
    pixels = floats(channels, size, size)
    video = floats(_field(config, "num_frames", 2), channels, size, size)
    text = {"input_ids": ids(), "attention_mask": ones()}
    decoder = {"decoder_input_ids": ids(4)}
    frames = 2 * _field(config, "max_source_positions", 32)
    groups: list[dict[str, Input]] = [
        {
            **text,
            "pixel_values": pixels,
            "pixel_mask": {**ones(size), "shape": [BATCH, size, size]},
        },
        {**text, "pixel_values": pixels, **decoder},
        {**text, "pixel_values": pixels},
        {**text, "input_features": floats(mels, frames)},
        {**text, "input_values": floats(1600)},
        {**text, "bbox": {"dtype": "int64", "shape": [BATCH, TEXT, 4], "low": 1, "high": 9}},
        {**text, **decoder},
        text,
        {"input_ids": ids()},
        {"pixel_values": pixels, **decoder},
        {"pixel_values": pixels},
        {"pixel_values": video},
        {"pixel_values_videos": video},
        {"input_features": floats(mels, frames), **decoder},
        {"input_features": floats(frames, mels), **decoder},
        {"input_features": floats(mels, frames)},
        {"input_features": floats(frames, mels)},
        {"input_features": floats(64, 80)},
        {"input_features": floats(64, 160)},
        {"input_values": floats(1600), **decoder},
        {"input_values": floats(1600)},
        {"input_values": floats(1, 1600)},
        {"input_values": floats(64, mels)},
        {"input_values": floats(128, 128)},
        {"spectrogram": floats(20, 80)},
        {"past_values": floats(32, _field(config, "num_input_channels", 2))},
        {"flattened_patches": floats(8, 770), **decoder},
        {"inputs_embeds": floats(TEXT, 32)},
    ]
    for group in groups:
        if set(group) <= taken:
            yield group


def _field(config: Any, name: str, default: int) -> int:
    """A field of the configuration or of one nested in it."""
    for part in (config, *_nested(config)):
        found = getattr(part, name, None)
        if isinstance(found, int):
            return found
    return default


def _nested(config: Any) -> list[Any]:
    return [getattr(config, n) for n in getattr(config, "sub_configs", {}) if hasattr(config, n)]


def _image(config: Any) -> tuple[int, int]:
    for part in (config, *_nested(config)):
        size = getattr(part, "image_size", None)
        if isinstance(size, list | tuple):
            size = size[0]
        if isinstance(size, int):
            return size, _field(part, "num_channels", 3)
    return 2 * IMAGE, _field(config, "num_channels", 3)


class Family(nn.Module):
    """A transformers model whose forward returns a dict of the tensors in its result."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        taken = inspect.signature(model.forward).parameters
        self.fixed = {
            n: v for n, v in {"use_cache": False, "return_dict": True}.items() if n in taken
        }

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        found = self.model(**inputs, **self.fixed)
        if isinstance(found, Tensor):
            return {"output": found}
        items = found.items() if hasattr(found, "items") else enumerate(found)
        return {str(n): v for n, v in items if isinstance(v, Tensor)}


def example(inputs: dict[str, Input], batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors for these inputs at this batch size."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, item in inputs.items():
        shape = [batch if s == BATCH else s for s in item["shape"]]
        if item["dtype"] == "int64":
            made[name] = torch.randint(item["low"], item["high"], shape, generator=generator)
        else:
            made[name] = torch.randn(shape, generator=generator).to(getattr(torch, item["dtype"]))
    return made
