"""A language model of GPT-2's structure (Radford et al. 2019), wide enough that a token takes time.

Random weights make a model repeat itself; wider initialisation and an output layer of its own keep
generation varied, so that a cache that was lost would show.
"""

from __future__ import annotations

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.initialization import no_init_weights

from genie.testing.weights import fill_

VOCABULARY = 4096


def build(layers: int = 4, width: int = 1536, heads: int = 24) -> nn.Module:
    """127 M parameters: 483 MB that every token reads once."""
    config = GPT2Config(
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        vocab_size=VOCABULARY,
        n_positions=512,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    with no_init_weights():  # fill_ writes every parameter
        model = GPT2LMHeadModel(config)
    filled: nn.Module = fill_(model)
    return filled.eval()
