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
    regions: Mapping[str, str],
    size: int = 32,
    auto: str = "AutoModelForImageClassification",
    frames: int = 0,
    **given: Any,
) -> None:
    """An image or video model for `size` × `size` pixels."""

    def build() -> tuple[nn.Module, Inputs]:
        shape = (frames, 3, size, size) if frames else (3, size, size)
        return of_config(name, auto, **given), {"pixel_values": floats(*shape)}

    add(name, "transformers", family, "vision", PAGE + name, regions, build)


def parts(stem: str, stage: str, head: str) -> dict[str, str]:
    """Modules by role, separated by spaces, below the wrapper."""
    return {
        f"model.{path}": role
        for role, paths in (("stem", stem), ("stage", stage), ("head", head))
        for path in paths.split()
    }


image(
    "resnet",
    "resnet",
    parts("resnet.embedder", "resnet.encoder.stages.*", "resnet.pooler classifier"),
    size=64,
    embedding_size=16,
    hidden_sizes=[16, 32, 64, 128],
    depths=[2, 2, 2, 2],
    layer_type="basic",
)
image(
    "regnet",
    "regnet",
    parts("regnet.embedder", "regnet.encoder.stages.*", "regnet.pooler classifier"),
    size=64,
    embedding_size=16,
    hidden_sizes=[16, 32, 48, 64],
    depths=[1, 2, 2, 1],
    groups_width=8,
)
image(
    "convnext",
    "convnext",
    parts("convnext.embeddings", "convnext.encoder.stages.*", "convnext.layernorm classifier"),
    size=64,
    hidden_sizes=[16, 32, 48, 64],
    depths=[2, 2, 2, 2],
    num_stages=4,
)
image(
    "convnextv2",
    "convnext",
    parts(
        "convnextv2.embeddings", "convnextv2.encoder.stages.*", "convnextv2.layernorm classifier"
    ),
    size=64,
    hidden_sizes=[16, 32, 48, 64],
    depths=[2, 2, 2, 2],
    num_stages=4,
)
image("vit", "vit", parts("vit.embeddings", "vit.layers", "vit.layernorm classifier"))
image(
    "dinov2",
    "dinov2",
    parts("dinov2.embeddings", "dinov2.encoder", "dinov2.layernorm classifier"),
)
image("beit", "beit", parts("beit.embeddings", "beit.layers", "beit.pooler classifier"))
image(
    "swin",
    "swin",
    parts(
        "swin.embeddings", "swin.encoder.layers.*.blocks", "swin.layernorm swin.pooler classifier"
    ),
    embed_dim=16,
    patch_size=2,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
)
image(
    "swinv2",
    "swin",
    parts(
        "swinv2.embeddings",
        "swinv2.encoder.layers.*.blocks",
        "swinv2.layernorm swinv2.pooler classifier",
    ),
    embed_dim=16,
    patch_size=2,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
)
image(
    "segformer",
    "segformer",
    parts("", "segformer.stages.*", "decode_head"),
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
    {
        **parts("mobilenet_v2.conv_stem", "", "mobilenet_v2.pooler classifier"),
        # Table 2 of Sandler et al. 2018, rows of equal resolution taken together.
        **{
            f"model.mobilenet_v2.layer.{i}": f"stage:{stage}"
            for stage, layers in enumerate([(0, 1), (2, 3, 4), range(5, 12), (12, 13, 14, 15)])
            for i in layers
        },
    },
    size=64,
    depth_multiplier=0.35,
    image_size=64,
)
image(
    "poolformer",
    "poolformer",
    {
        "model.poolformer.encoder.patch_embeddings.*": "stage",
        "model.poolformer.encoder.block.*": "stage",
        "model.norm": "head",
        "model.classifier": "head",
    },
    size=64,
    hidden_sizes=[8, 16, 16, 32],
    depths=[1, 2, 1, 1],
)
image(
    "pvt",
    "pvt",
    {
        "model.pvt.encoder.patch_embeddings.*": "stage",
        "model.pvt.encoder.block.*": "stage",
        "model.pvt.encoder.layer_norm": "head",
        "model.classifier": "head",
    },
    size=64,
    image_size=64,
    hidden_sizes=[16, 32, 64, 64],
    depths=[1, 1, 1, 1],
    num_attention_heads=[1, 2, 4, 4],
)
image(
    "mobilevit",
    "mobilevit",
    parts("mobilevit.conv_stem", "", "classifier"),
    size=64,
    image_size=64,
    hidden_sizes=[16, 24, 32],
    neck_hidden_sizes=[16, 16, 24, 32, 40, 48, 80],
)
image(
    "timesformer",
    "timesformer",
    parts("timesformer.embeddings", "timesformer.encoder", "timesformer.layernorm classifier"),
    auto="AutoModelForVideoClassification",
    frames=2,
)
