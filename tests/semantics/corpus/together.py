"""Multi-modal models of transformers: a tower for each modality, and the point of fusion.

A tower is labelled with its modality; what both reach is `fusion`. The projections into the common
space belong to their towers (Radford et al. 2021, figure 3, lines 8 and 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tests.semantics.corpus.language import PAGE, of_config
from tests.semantics.corpus.registry import Inputs, add, floats, ids, mask


def pair(
    name: str,
    family: str,
    regions: Mapping[str, str],
    inputs: Inputs | None = None,
    auto: str = "AutoModel",
    **given: Any,
) -> None:
    """A model of images and texts."""

    def build() -> tuple[nn.Module, Inputs]:
        usual = {"input_ids": ids(8), "attention_mask": mask(8), "pixel_values": floats(3, 32, 32)}
        return of_config(name, auto, **given), inputs or usual

    add(name, "transformers", family, "multimodal", PAGE + name, regions, build)


DUAL = {
    "model.vision_model": "vision",
    "model.visual_projection": "vision",
    "model.text_model": "text",
    "model.text_projection": "text",
    "model!matmul": "fusion",
    "model!exp": "fusion",
}
for name in ("clip", "chinese_clip", "altclip", "metaclip_2"):
    pair(name, "clip", DUAL)
pair(
    "siglip",
    "siglip",
    {k: v for k, v in DUAL.items() if not k.endswith("_projection")},
)
pair("blip", "blip", DUAL)
pair("groupvit", "groupvit", DUAL)
pair(
    "flava",
    "flava",
    {
        "model.image_model": "vision",
        "model.image_to_mm_projection": "vision",
        "model.text_model": "text",
        "model.text_to_mm_projection": "text",
        "model.multimodal_model": "fusion",
    },
)
pair(
    "git",
    "git",
    {
        "model.git.image_encoder": "vision",
        "model.git.visual_projection": "vision",
        "model.git.embeddings": "text",
        "model.git.encoder": "fusion",
        "model.output": "fusion",
    },
    auto="AutoModelForCausalLM",
)
pair(
    "clipseg",
    "clipseg",
    DUAL,
)
pair(
    "owlvit",
    "owlvit",
    DUAL,
)
