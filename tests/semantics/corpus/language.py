"""Language models and text encoders of transformers, each with its documentation's module names.

The pages cited are https://huggingface.co/docs/transformers/model_doc/<name>; the regions are the
blocks that the page's architecture section (or the paper that it cites) names: token embedding,
the attention and the feed-forward sublayer of every layer with their norms, language-model head.
Encoders without a causal mask generate nothing: they are `generic`, and their layers are labelled
all the same.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.compat.inputs import Family
from tests.compat.small import STYLES, small
from tests.semantics.corpus.registry import Inputs, add, blocks, ids, mask

PAGE = "https://huggingface.co/docs/transformers/model_doc/"
LLAMA = {
    "model.model.embed_tokens": "embedding",
    **blocks(
        "model.model.layers",
        attention="input_layernorm self_attn",
        mlp="post_attention_layernorm mlp",
    ),
    "model.lm_head": "lm_head",
}


def of_config(name: str, auto: str, **given: Any) -> nn.Module:
    """The model that `transformers.<auto>` makes of the small configuration of a family."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind: Any = getattr(transformers, auto)
    failure: Exception | None = None
    for style in STYLES:
        try:
            return Family(kind.from_config(small(CONFIG_MAPPING[name], style, **given)))
        except Exception as error:
            failure = error
    assert failure is not None
    raise failure


def causal(
    name: str, family: str, regions: dict[str, str], *, masked: bool = False, **given: Any
) -> None:
    """A decoder-only language model; `masked` ones are also given an attention mask."""

    def build() -> tuple[nn.Module, Inputs]:
        inputs = {"input_ids": ids(8)} | ({"attention_mask": mask(8)} if masked else {})
        return of_config(name, "AutoModelForCausalLM", **given), inputs

    entry = name.replace("-", "_")
    add(entry, "transformers", family, "llm", PAGE + name, regions, build)


def encoder(
    name: str, family: str, regions: dict[str, str], auto: str = "AutoModel", **given: Any
) -> None:
    """A bidirectional text encoder."""

    def build() -> tuple[nn.Module, Inputs]:
        inputs = {"input_ids": ids(8)}
        if name != "fnet":
            inputs["attention_mask"] = mask(8)
        return of_config(name, auto, **given), inputs

    entry = name.replace("-", "_") + ("" if auto == "AutoModel" else "_masked_lm")
    add(entry, "transformers", family, "generic", PAGE + name, regions, build)


def sequence(name: str, family: str, regions: dict[str, str], **given: Any) -> None:
    """An encoder-decoder language model."""

    def build() -> tuple[nn.Module, Inputs]:
        module = of_config(name, "AutoModelForSeq2SeqLM", **given)
        return module, {"input_ids": ids(8), "decoder_input_ids": ids(4)}

    add(name, "transformers", family, "llm", PAGE + name, regions, build)


def layers(at: str, attention: str, mlp: str, embedding: str, head: str) -> dict[str, str]:
    """Regions of a stack: the list of layers, and modules by role, separated by spaces."""
    return {
        **dict.fromkeys(embedding.split(), "embedding"),
        **blocks(at, attention=attention, mlp=mlp),
        **dict.fromkeys(head.split(), "lm_head"),
    }


T = "model.transformer."
causal(
    "gpt2",
    "gpt2",
    layers(T + "h", "ln_1 attn", "ln_2 mlp", f"{T}wte {T}wpe", "model.lm_head"),
)
causal("llama", "llama", LLAMA)
causal("qwen2", "llama", LLAMA, masked=True)
causal("mistral", "llama", LLAMA)
causal("granite", "llama", LLAMA)
causal("mixtral", "mixtral", LLAMA)
causal("qwen2_moe", "qwen-moe", LLAMA)
causal(
    "gpt_neox",
    "gpt-neox",
    layers(
        "model.gpt_neox.layers",
        "input_layernorm attention",
        "post_attention_layernorm mlp",
        "model.gpt_neox.embed_in",
        "model.lm_head",
    ),
)
causal(
    "opt",
    "opt",
    layers(
        "model.model.decoder.layers",
        "self_attn_layer_norm self_attn",
        "final_layer_norm fc1 activation_fn fc2",
        "model.model.decoder.embed_tokens model.model.decoder.embed_positions",
        "model.lm_head",
    ),
    masked=True,
)
causal(
    "bloom",
    "bloom",
    layers(
        T + "h",
        "input_layernorm self_attention",
        "post_attention_layernorm mlp",
        f"{T}word_embeddings {T}word_embeddings_layernorm",
        "model.lm_head",
    ),
    masked=True,
)
causal(
    "falcon",
    "falcon",
    layers(
        T + "h",
        "input_layernorm self_attention",
        "mlp",
        f"{T}word_embeddings",
        "model.lm_head",
    ),
)
causal(
    "phi",
    "phi",
    layers(
        "model.model.layers",
        "input_layernorm self_attn",
        "mlp",
        "model.model.embed_tokens",
        "model.lm_head",
    ),
)
GEMMA = layers(
    "model.model.layers",
    "input_layernorm self_attn post_attention_layernorm",
    "pre_feedforward_layernorm mlp post_feedforward_layernorm",
    "model.model.embed_tokens",
    "model.lm_head",
)
causal("gemma2", "gemma", GEMMA, masked=True)
causal(
    "mpt",
    "mpt",
    layers(T + "blocks", "norm_1 attn", "norm_2 ffn", f"{T}wte", "model.lm_head"),
    masked=True,
)
for name in ("gptj", "codegen"):
    causal(name, "gptj", layers(T + "h", "ln_1 attn", "mlp", f"{T}wte", "model.lm_head"))
causal(
    "openai-gpt",
    "openai-gpt",
    layers(
        T + "h",
        "attn ln_1",
        "mlp ln_2",
        f"{T}tokens_embed {T}positions_embed",
        "model.lm_head",
    ),
)
causal(
    "olmo2",
    "olmo2",
    layers(
        "model.model.layers",
        "self_attn post_attention_layernorm",
        "mlp post_feedforward_layernorm",
        "model.model.embed_tokens",
        "model.lm_head",
    ),
)
causal(
    "cohere",
    "cohere",
    layers(
        "model.model.layers",
        "input_layernorm self_attn",
        "mlp",
        "model.model.embed_tokens",
        "model.lm_head",
    ),
    masked=True,
)

# -- encoder-decoder language models -------------------------------------------------------------

for name in ("t5", "mt5"):
    sequence(
        name,
        "t5",
        {
            "model.encoder.embed_tokens": "embedding",
            "model.decoder.embed_tokens": "embedding",
            "model.encoder.block.*.layer.0": "attention",
            "model.encoder.block.*.layer.1": "mlp",
            "model.decoder.block.*.layer.0": "attention",
            "model.decoder.block.*.layer.1": "attention:cross",
            "model.decoder.block.*.layer.2": "mlp",
            "model.lm_head": "lm_head",
        },
    )
BART = {
    **dict.fromkeys(
        (
            f"model.model.{half}.{part}"
            for half in ("encoder", "decoder")
            for part in ("embed_tokens", "embed_positions", "layernorm_embedding")
        ),
        "embedding",
    ),
    **blocks(
        "model.model.encoder.layers",
        attention="self_attn self_attn_layer_norm",
        mlp="fc1 activation_fn fc2 final_layer_norm",
    ),
    **blocks(
        "model.model.decoder.layers",
        attention="self_attn self_attn_layer_norm",
        attention__cross="encoder_attn encoder_attn_layer_norm",
        mlp="fc1 activation_fn fc2 final_layer_norm",
    ),
    "model.lm_head": "lm_head",
}
for name in ("bart", "marian", "mbart"):
    sequence(name, "bart", BART)

# -- encoders: they generate nothing -------------------------------------------------------------

BERT = layers("model.encoder.layer", "attention", "intermediate output", "model.embeddings", "")
for name in ("bert", "roberta", "electra"):
    encoder(name, "bert", BERT)
encoder("bert", "bert", {}, "AutoModelForMaskedLM")
encoder(
    "distilbert",
    "distilbert",
    layers(
        "model.transformer.layer",
        "attention sa_layer_norm",
        "ffn output_layer_norm",
        "model.embeddings",
        "",
    ),
    hidden_dim=64,
)
encoder("deberta-v2", "deberta", BERT)
encoder(
    "mpnet",
    "mpnet",
    layers("model.encoder.layer", "attention", "intermediate output", "model.embeddings", ""),
)
encoder("fnet", "fnet", {})
encoder("albert", "albert", {})
