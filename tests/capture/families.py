"""Small random members of transformers' model families, each behind a forward of tensors.

`FAMILIES` maps a name to a function that returns the module and its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Case = tuple[nn.Module, dict[str, Any]]
FAMILIES: dict[str, Callable[[], Case]] = {}

IDS = {"dtype": "int64", "shape": ["b", 12], "low": 0, "high": 90}
MASK = {"dtype": "int64", "shape": ["b", 12], "low": 0, "high": 2}
PIXELS = ("float32", ["b", 3, 32, 32])
TEXT: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}


class Wrapped(nn.Module):
    """The named outputs of a transformers model, for the named inputs."""

    def __init__(
        self, model: nn.Module, inputs: list[str], outputs: list[str], **fixed: Any
    ) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.outputs = outputs
        self.fixed = fixed

    def call(self, *values: Tensor) -> dict[str, Tensor]:
        found = self.model(**dict(zip(self.inputs, values, strict=True)), **self.fixed)
        return {name: getattr(found, name) for name in self.outputs}


class TextModel(Wrapped):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return self.call(input_ids, attention_mask)


class ImageModel(Wrapped):
    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return self.call(pixel_values)


class SoundModel(Wrapped):
    def forward(self, sound: Tensor) -> dict[str, Tensor]:
        return self.call(sound)


def text(model: nn.Module, *outputs: str, **fixed: Any) -> Case:
    names = ["input_ids", "attention_mask"]
    return TextModel(model, names, list(outputs or ["last_hidden_state"]), **fixed), {
        "input_ids": IDS,
        "attention_mask": MASK,
    }


def image(model: nn.Module, *outputs: str, size: int = 32) -> Case:
    chosen = list(outputs or ["last_hidden_state"])
    return ImageModel(model, ["pixel_values"], chosen), {
        "pixel_values": ("float32", ["b", 3, size, size])
    }


def family(build: Callable[[], Case]) -> Callable[[], Case]:
    def seeded() -> Case:
        torch.manual_seed(0)
        return build()

    FAMILIES[build.__name__] = seeded
    return build


@family
def bert() -> Case:
    from transformers import BertConfig, BertModel

    return text(BertModel(BertConfig(**TEXT)), "last_hidden_state", "pooler_output")


@family
def roberta() -> Case:
    from transformers import RobertaConfig, RobertaModel

    return text(RobertaModel(RobertaConfig(**TEXT)))


@family
def distilbert() -> Case:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=100, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    return text(DistilBertModel(config))


@family
def albert() -> Case:
    from transformers import AlbertConfig, AlbertModel

    return text(AlbertModel(AlbertConfig(**TEXT, embedding_size=8)))


@family
def electra() -> Case:
    from transformers import ElectraConfig, ElectraForPreTraining

    return text(ElectraForPreTraining(ElectraConfig(**TEXT, embedding_size=8)), "logits")


@family
def deberta() -> Case:
    from transformers import DebertaV2Config, DebertaV2Model

    return text(DebertaV2Model(DebertaV2Config(**TEXT)))


@family
def mpnet() -> Case:
    from transformers import MPNetConfig, MPNetModel

    return text(MPNetModel(MPNetConfig(**TEXT)))


@family
def gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=100, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    return text(GPT2LMHeadModel(config), "logits", use_cache=False)


@family
def llama() -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    return text(LlamaForCausalLM(LlamaConfig(**TEXT)), "logits", use_cache=False)


@family
def t5_encoder() -> Case:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return text(T5EncoderModel(config))


@family
def clip_text() -> Case:
    from transformers import CLIPTextConfig, CLIPTextModel

    return text(CLIPTextModel(CLIPTextConfig(**TEXT)))


@family
def clip_vision() -> Case:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return image(CLIPVisionModel(CLIPVisionConfig(**VISION)))


@family
def resnet() -> Case:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic")
    return image(ResNetForImageClassification(config), "logits")


@family
def vit() -> Case:
    from transformers import ViTConfig, ViTModel

    return image(ViTModel(ViTConfig(**VISION)))


@family
def deit() -> Case:
    from transformers import DeiTConfig, DeiTModel

    return image(DeiTModel(DeiTConfig(**VISION)))


@family
def beit() -> Case:
    from transformers import BeitConfig, BeitModel

    return image(BeitModel(BeitConfig(**VISION, use_relative_position_bias=True)))


@family
def dinov2() -> Case:
    from transformers import Dinov2Config, Dinov2Model

    return image(Dinov2Model(Dinov2Config(**VISION)))


@family
def convnext() -> Case:
    from transformers import ConvNextConfig, ConvNextModel

    return image(ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2)))


@family
def swin() -> Case:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    return image(SwinModel(config))


@family
def segformer() -> Case:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 16],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
    )
    return image(SegformerForSemanticSegmentation(config), "logits", size=64)


@family
def mobilenet_v2() -> Case:
    from transformers import MobileNetV2Config, MobileNetV2Model

    config = MobileNetV2Config(depth_multiplier=0.35, image_size=64)
    return image(MobileNetV2Model(config), "pooler_output", size=64)


@family
def efficientnet() -> Case:
    from transformers import EfficientNetConfig, EfficientNetModel

    config = EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320
    )
    return image(EfficientNetModel(config), "last_hidden_state", size=64)


@family
def regnet() -> Case:
    from transformers import RegNetConfig, RegNetModel

    config = RegNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], groups_width=8
    )
    return image(RegNetModel(config), "pooler_output")


@family
def poolformer() -> Case:
    from transformers import PoolFormerConfig, PoolFormerModel

    config = PoolFormerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    return image(PoolFormerModel(config), size=64)


@family
def levit() -> Case:
    from transformers import LevitConfig, LevitModel

    config = LevitConfig(
        image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[2, 2, 2], depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    )  # fmt: skip
    return image(LevitModel(config), size=64)


@family
def whisper_encoder() -> Case:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        num_mel_bins=8, max_source_positions=20, vocab_size=100, pad_token_id=0,
    )  # fmt: skip
    model = SoundModel(WhisperEncoder(config), ["input_features"], ["last_hidden_state"])
    return model, {"sound": ("float32", ["b", 8, 40])}


@family
def wav2vec2() -> Case:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = SoundModel(Wav2Vec2Model(config), ["input_values"], ["last_hidden_state"])
    return model, {"sound": ("float32", ["b", 800])}


@family
def hubert() -> Case:
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = SoundModel(HubertModel(config), ["input_values"], ["last_hidden_state"])
    return model, {"sound": ("float32", ["b", 800])}


@family
def time_series() -> Case:
    from transformers import PatchTSTConfig, PatchTSTModel

    config = PatchTSTConfig(
        num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, d_model=16,
        num_attention_heads=2, ffn_dim=32, num_hidden_layers=2,
    )  # fmt: skip
    model = SoundModel(PatchTSTModel(config), ["past_values"], ["last_hidden_state"])
    return model, {"sound": ("float32", ["b", 32, 2])}
