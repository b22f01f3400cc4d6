"""A small configuration of any transformers family, by the meaning of its fields.

transformers names the same thing alike in most families: `hidden_size`, `num_hidden_layers`. Each
field of a configuration that stands in one of the tables below gets a small value, nested
configurations likewise. What the rules do not fit is told in `tests.compat.families`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

WIDTH, HEADS, LAYERS, VOCABULARY, IMAGE = 32, 4, 2, 128, 32
"""Hidden width, attention heads, layers of each stack, tokens, pixels of an image's edge."""

VALUES: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "text_vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        (
            *("hidden_size", "d_model", "n_embd", "dim", "hidden_dim", "decoder_hidden_size"),
            *("projection_dim", "out_hidden_size", "encoder_hidden_size", "projector_hidden_size"),
            *("encoder_hidden_dim", "embedding_dim", "d_embed", "output_hidden_size", "emb_dim"),
            *("classifier_proj_size", "pooler_output_size", "fpn_hidden_size", "width"),
            *("neck_hidden_size", "output_channels", "fusion_hidden_size", "word_embed_proj_dim"),
            *("hidden_size_per_layer_input", "decoder_dim", "encoder_dim", "bottleneck_dim"),
        ),
        WIDTH,
    ),
    **dict.fromkeys(("embedding_size", "rotary_dim_of_embedding"), WIDTH // 2),
    **dict.fromkeys(
        (
            *("intermediate_size", "d_ff", "ffn_dim", "n_inner", "d_inner", "ff_dim"),
            *("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size", "hidden_ff"),
            *("shared_expert_intermediate_size", "decoder_intermediate_size", "hidden_dim_ff"),
            *("intermediate_size_mlp", "ffn_hidden_size", "feed_forward_hidden_size"),
            *("expert_intermediate_size", "dense_intermediate_size", "adapter_hidden_dim"),
        ),
        2 * WIDTH,
    ),
    **dict.fromkeys(
        (
            *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
            *("decoder_attention_heads", "decoder_num_attention_heads", "attention_heads"),
            *("encoder_num_attention_heads", "num_attention_heads_decoder"),
        ),
        HEADS,
    ),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_size"), WIDTH // HEADS),
    **dict.fromkeys(("rotary_dim",), 4),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("index_n_heads",), 2),
    **dict.fromkeys(
        (
            *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
            *("decoder_layers", "depth", "num_decoder_layers", "num_encoder_layers", "layers"),
            *("decoder_num_hidden_layers", "encoder_num_hidden_layers", "num_blocks"),
            *("num_encoder_blocks_of_backbone", "projector_num_layers", "num_dense_layers"),
            *("num_adapter_layers", "memory_attention_num_layers", "memory_fuser_num_layers"),
            *("speech_encoder_layers", "text_encoder_layers", "t2u_encoder_layers"),
            *("t2u_decoder_layers", "encoder_layers_of_speech", "postnet_layers"),
        ),
        LAYERS,
    ),
    **dict.fromkeys(("num_kv_shared_layers", "first_k_dense_replace", "max_window_layers"), 1),
    **dict.fromkeys(
        (
            *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_seq_length"),
            *("max_target_positions", "max_2d_position_embeddings", "model_max_length"),
            *("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
            *("num_position_embeddings", "sliding_window", "attention_window_size"),
        ),
        64,
    ),
    "max_source_positions": 32,
    "image_size": IMAGE,
    "patch_size": 8,
    "input_size_of_image": IMAGE,
    "num_mel_bins": 16,
    "num_queries": 6,
    "num_denoising": 0,
    "num_query_tokens": 4,
    "num_labels": 3,
    "pretrain_image_size": IMAGE,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts"), 1),
    "codebook_size": 32,
    "num_codevectors_per_group": 8,
    "codevector_dim": 16,
    "proj_codevector_dim": 16,
    "xvector_output_dim": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
    "state_size": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_frames": 2,
    "max_num_tiles": 1,
    "num_register_tokens": 2,
}
"""Field → its small value, where the field's own default is larger (or not given)."""

LISTS: dict[str, tuple[int, ...]] = {
    "depths": (1, 1, 1, 1),
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "tdnn_dim": (16, 16, 16, 16, 16),
}
"""Fields of one number a stage; cut to the length of the default."""

WIDTHS = {"hidden_sizes", "encoder_in_channels", "decoder_in_channels", "embed_dims"}
"""Fields of one width a stage: 16 more from stage to stage."""

TOKENS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
FREE = (*range(100, VOCABULARY),)
"""Tokens above these are nobody's: image, audio and video tokens are among them."""
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "decoder_num_key_value_heads")
STYLES: tuple[Mapping[str, int], ...] = (
    dict.fromkeys(KEY_HEADS, 2),
    dict.fromkeys(KEY_HEADS, HEADS) | {"head_dim": 8, "qk_rope_head_dim": 8, "embed_dim": WIDTH},
)
"""Fields on which families differ; the first that fits is taken."""


def small(kind: type[Any], style: Mapping[str, int] = STYLES[0], **given: Any) -> Any:
    """An instance of the configuration class `kind`; `given` fields as they are."""
    return kind(**fields_of(kind, style, given))


def fields_of(
    kind: type[Any], style: Mapping[str, int], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields to set: `given` ones, else what the tables say of those that the class has."""
    found: dict[str, Any] = {}
    free = iter(FREE)
    nested = _nested(kind)
    values = {**VALUES, **style}
    for field in dataclasses.fields(kind):
        name, default = field.name, field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if name in given:
            continue
        if name in nested:
            part = nested[name]
            made = fields_of(part, style, {})
            found[name] = {**made, "model_type": part.model_type}
        elif name in TOKENS:
            if default is not None:
                found[name] = TOKENS[name]
        elif name.endswith(("token_id", "token_index")) and isinstance(default, int):
            found[name] = next(free) if default > 90 else default
        elif isinstance(default, bool):
            continue
        elif name in values and (default is None or isinstance(default, int)):
            if default is None and name not in ("num_key_value_heads", "head_dim"):
                continue
            found[name] = values[name] if default is None else min(values[name], default)
        elif name in LISTS and isinstance(default, list | tuple):
            found[name] = type(default)(LISTS[name][: len(default)])
        elif name in WIDTHS and isinstance(default, list | tuple):
            found[name] = type(default)(16 * (i + 1) for i in range(len(default)))
    return {**found, **given}


def _nested(kind: type[Any]) -> dict[str, type[Any]]:
    """Fields that are configurations, and their classes: those that the default has."""
    declared = getattr(kind, "sub_configs", {})
    if not declared:
        return {}
    found = {n: c for n, c in declared.items() if hasattr(c, "model_type") and c.model_type}
    if len(found) < len(declared):
        try:
            default = kind()
        except Exception:  # it has no default: its fields must be given
            return found
        found |= {
            n: type(part) for n in declared if (part := getattr(default, n, None)) is not None
        }
    return {n: c for n, c in found.items() if dataclasses.is_dataclass(c)}
