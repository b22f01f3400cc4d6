"""Vision models of transformers.

Regions: the stem or patch embedding, the stages of the backbone, the head. A stage is what Lin et
al. 2017 (Feature Pyramid Networks, section 3) call so: "there are often many layers producing
output maps of the same size and we say these layers are in the same network stage". A plain ViT
keeps one resolution and has one stage. The pages cited have the modules' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tests.semantics.corpus.language import PAGE, of_config
from tests.semantics.corpus.registry import Inputs, add, floats


def image(
    name: str,
    family: str,
    roles: tuple[str, str, str],
    more: Mapping[str, str] | None = None,
    size: int = 32,
    auto: str = "AutoModelForImageClassification",
    frames: int = 0,
    **given: Any,
) -> None:
    """An image or video model for `size` × `size` pixels.

    `roles` are the modules of stem, stages and head, each separated by spaces; those that begin
    with a dot are below the backbone, which is named as the model is.
    """

    def build() -> tuple[nn.Module, Inputs]:
        shape = (frames, 3, size, size) if frames else (3, size, size)
        return of_config(name, auto, **given), {"pixel_values": floats(*shape)}

    regions = {
        f"model.{name if path.startswith('.') else ''}{path}": role
        for role, paths in zip(("stem", "stage", "head"), roles, strict=True)
        for path in paths.split()
    }
    add(name, "transformers", family, "vision", PAGE + name, regions | dict(more or {}), build)


image(
    "resnet",
    "resnet",
    (".embedder", ".encoder.stages.*", ".pooler classifier"),
    size=64,
    embedding_size=16,
    hidden_sizes=[16, 32, 64, 128],
    depths=[2, 2, 2, 2],
    layer_type="basic",
)
image(
    "regnet",
    "regnet",
    (".embedder", ".encoder.stages.*", ".pooler classifier"),
    size=64,
    embedding_size=16,
    hidden_sizes=[16, 32, 48, 64],
    depths=[1, 2, 2, 1],
    groups_width=8,
)
for name in ("convnext", "convnextv2"):
    image(
        name,
        "convnext",
        (".embeddings", ".encoder.stages.*", ".layernorm classifier"),
        size=64,
        hidden_sizes=[16, 32, 48, 64],
        depths=[2, 2, 2, 2],
        num_stages=4,
    )
image("vit", "vit", (".embeddings", ".layers", ".layernorm classifier"))
image("dinov2", "dinov2", (".embeddings", ".encoder", ".layernorm classifier"))
image("beit", "beit", (".embeddings", ".layers", ".pooler classifier"))
for name in ("swin", "swinv2"):
    image(
        name,
        "swin",
        (".embeddings", ".encoder.layers.*.blocks", ".layernorm .pooler classifier"),
        embed_dim=16,
        patch_size=2,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    )
image(
    "segformer",
    "segformer",
    ("", ".stages.*", "decode_head"),
    size=64,
    auto="AutoModelForSemanticSegmentation",
    depths=[1, 1, 1, 1],
    hidden_sizes=[8, 16, 16, 16],
    num_attention_heads=[1, 2, 2, 2],
    decoder_hidden_size=16,
)
image(
    "mobilenet_v2",
    "mobilenet",
    (".conv_stem", "", ".pooler classifier"),
    # Table 2 of Sandler et al. 2018, rows of equal resolution taken together.
    {
        f"model.mobilenet_v2.layer.{i}": f"stage:{stage}"
        for stage, layers in enumerate([(0, 1), (2, 3, 4), range(5, 12), (12, 13, 14, 15)])
        for i in layers
    },
    size=64,
    depth_multiplier=0.35,
    image_size=64,
)
image(
    "poolformer",
    "poolformer",
    ("", ".encoder.patch_embeddings.* .encoder.block.*", "norm classifier"),
    size=64,
    hidden_sizes=[8, 16, 16, 32],
    depths=[1, 2, 1, 1],
)
image(
    "pvt",
    "pvt",
    ("", ".encoder.patch_embeddings.* .encoder.block.*", ".encoder.layer_norm classifier"),
    size=64,
    image_size=64,
    hidden_sizes=[16, 32, 64, 64],
    depths=[1, 1, 1, 1],
    num_attention_heads=[1, 2, 4, 4],
)
image(
    "mobilevit",
    "mobilevit",
    (".conv_stem", "", "classifier"),
    size=64,
    image_size=64,
    hidden_sizes=[16, 24, 32],
    neck_hidden_sizes=[16, 16, 24, 32, 40, 48, 80],
)
image(
    "timesformer",
    "timesformer",
    (".embeddings", ".encoder", ".layernorm classifier"),
    auto="AutoModelForVideoClassification",
    frames=2,
)
