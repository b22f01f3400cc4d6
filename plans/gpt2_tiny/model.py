"""GPT-2 (Radford et al. 2019), four small layers of it, from transformers' configuration."""

from __future__ import annotations

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.initialization import no_init_weights

from genie.testing.weights import fill_


def build(layers: int = 4) -> nn.Module:
    """A causal language model of 512 tokens and 96 positions; token 0 ends a sequence."""
    config = GPT2Config(
        n_layer=layers,
        n_head=4,
        n_embd=64,
        vocab_size=512,
        n_positions=96,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with no_init_weights():  # fill_ writes every parameter
        model = GPT2LMHeadModel(config)
    fill_(model)
    # Narrow embeddings make it repeat itself; powers of two keep every value exact.
    for table in (model.transformer.wte, model.transformer.wpe):
        table.weight.data.mul_(16)
    return model.eval()
