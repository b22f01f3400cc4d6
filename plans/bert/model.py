"""BERT-base (Devlin et al. 2018), from transformers' configuration."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.initialization import no_init_weights

from genie.testing.weights import fill_


class Encoder(nn.Module):
    """int64[batch, seq] token ids and mask (1 keep, 0 padding) -> the two outputs of BERT."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return {
            "last_hidden_state": output.last_hidden_state,  # float32[batch, seq, 768]
            "pooler_output": output.pooler_output,  # float32[batch, 768]
        }


def build(layers: int = 12) -> nn.Module:
    """109.5 M parameters with the default 12 layers."""
    with no_init_weights():  # fill_ writes every parameter: drawing them first is a second lost
        model = BertModel(BertConfig(num_hidden_layers=layers))
    return fill_(Encoder(model)).eval()
