"""ViT-base, 16x16 patches (Dosovitskiy et al. 2020), from transformers' configuration."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification
from transformers.initialization import no_init_weights

from genie.testing.weights import fill_


class Classifier(nn.Module):
    """float32[batch, 3, 224, 224] -> logits float32[batch, 1000]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(pixel_values=pixel_values).logits}


def build(layers: int = 12) -> nn.Module:
    """86.6 M parameters with the default 12 layers."""
    config = ViTConfig(num_hidden_layers=layers, num_labels=1000)  # type: ignore[call-arg]
    with no_init_weights():  # fill_ writes every parameter: drawing them first is a second lost
        model = ViTForImageClassification(config)
    return fill_(Classifier(model)).eval()
