"""A small BERT with its masked-language-model head, whose decoder is the embedding table."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from genie.testing.weights import fill_


class MaskedLM(nn.Module):
    """int64[batch, seq] token ids -> logits float32[batch, seq, vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(input_ids=input_ids).logits}


def build(vocabulary: int = 4096, hidden: int = 128, layers: int = 4) -> nn.Module:
    """1.4 M parameters by default; `decoder.weight` *is* `word_embeddings.weight`."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return fill_(MaskedLM(BertForMaskedLM(config))).eval()
