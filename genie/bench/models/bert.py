"""BERT-base (Devlin et al. 2018), from transformers' configuration."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.initialization import no_init_weights

from genie.testing.weights import fill_


class Encoder(nn.Module):
    """int64[batch, seq] token ids and mask to float32[batch, seq, 768]."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode."""
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        result: Tensor = output.last_hidden_state
        return result


def build() -> nn.Module:
    """109.5 M parameters."""
    with no_init_weights():  # fill_ writes every parameter
        model = BertModel(BertConfig())
    return fill_(Encoder(model)).eval()
