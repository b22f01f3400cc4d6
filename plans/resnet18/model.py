"""ResNet-18 (He et al. 2015) at full size, from transformers' configuration."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from genie.testing.weights import fill_


class Classifier(nn.Module):
    """float32[batch, 3, 224, 224] -> logits float32[batch, 1000].

    A plan returns tensors, so the wrapper unpacks transformers' output class.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(pixel_values=pixel_values).logits}


def build() -> nn.Module:
    """11.7 M parameters."""
    config = ResNetConfig(  # type: ignore[call-arg]
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=1000,
    )
    return fill_(Classifier(ResNetForImageClassification(config))).eval()
