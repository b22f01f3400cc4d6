"""CLIP (Radford et al. 2021): an image tower and a text tower that meet in one product."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from genie.testing.weights import fill_


class ImageTextMatcher(nn.Module):
    """float32[images, 3, 128, 128], int64[texts, 32] -> float32[images, texts] similarities.

    Also returns both normalised embeddings, float32[images, 128] and float32[texts, 128].
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        output = self.clip(pixel_values=pixel_values, input_ids=input_ids)
        return {
            "logits_per_image": output.logits_per_image,
            "image_embeds": output.image_embeds,
            "text_embeds": output.text_embeds,
        }


def build(layers: int = 4) -> nn.Module:
    """3.8 M parameters: CLIP's structure at a width that compiles in a moment."""
    config = CLIPConfig(
        text_config={
            "vocab_size": 8192,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,  # as published: the text is pooled at its highest token id
            "projection_dim": 128,
        },
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": layers,
            "num_attention_heads": 6,
            "image_size": 128,
            "patch_size": 16,
            "projection_dim": 128,
        },
        projection_dim=128,
    )
    return fill_(ImageTextMatcher(CLIPModel(config))).eval()
