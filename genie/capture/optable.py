"""Generates the committed operator table, `genie_schemas/json/optable.json`.

    python -m genie.capture.optable          # rewrite the table with the installed torch

The table is the allow-list: an overload that is not in it never runs. Left out are overloads that
write to `out=` arguments, take storages, streams or names, return host values, touch memory without
checks, or belong to a backend, sparse, nested or quantised layout.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

import genie_schemas

TABLE = Path(genie_schemas.__file__).parent / "json" / "optable.json"

_ALLOWED_UNDERSCORE = re.compile(
    r"_(softmax|log_softmax|safe_softmax|masked_softmax|to_copy|unsafe_view|unsafe_index|"
    r"unsafe_index_put|reshape_alias|conj|conj_physical|neg_view|native_batch_norm_legit|"
    r"native_batch_norm_legit_no_training|native_batch_norm_legit_functional|"
    r"scaled_dot_product_\w+|embedding_bag|embedding_bag_forward_only|fft_\w+|linalg_\w+|"
    r"weight_norm|weight_norm_interface|adaptive_avg_pool2d|adaptive_avg_pool3d|prelu_kernel|"
    r"add_relu|addmm_activation|aminmax|cdist_forward|pdist_forward|ctc_loss|trilinear|stack|"
    r"unique|unique2|upsample_\w+|int_mm|scaled_mm|grouped_mm|fused_rms_norm|convolution|"
    r"convolution_mode|batch_norm_impl_index|logcumsumexp|is_all_true|is_any_true|euclidean_dist|"
    r"standard_gamma|sample_dirichlet|lu_with_info|assert_tensor_metadata|assert_async|"
    r"pad_circular|pad_enum|chunk_cat|cast_\w+|native_multi_head_attention|"
    r"transformer_encoder_layer_fwd|transform_bias_rescale_qkv|thnn_fused_\w+_cell|"
    r"pack_padded_sequence|pad_packed_sequence|shape_as_tensor|foreach_\w+|fused_dropout|"
    r"weight_int8pack_mm|unsafe_masked_index|unsafe_masked_index_put_accumulate|"
    r"softmax_backward_data|log_softmax_backward_data|scaled_mm_v2)_?|__\w+__"
)
_DENIED = re.compile(
    r"(cudnn|miopen|mkldnn|mps|fbgemm|quantized|q_|sparse|nested|to_sparse|to_mkldnn|to_padded|"
    r"set_|resize|rename|align_|refine|unflatten_dense|int_repr|dequantize|quantize|"
    r"from_file|pin_memory|is_pinned|record_stream|requires_grad|retain_grad|storage|"
    r"choose_qparams|fake_quantize|fused_moving|crow_|ccol_|col_indices|row_indices|"
    r"coalesce|indices|values_copy|empty_quantized|per_tensor|segment_reduce_b|"
    r"sym_constrain|print).*|data|set|item|values|indices|.*_sparse|.*nnz.*|"
    r"swap|to_dense|detach_copy|.*_scatter_mask|"
    # Of the backward operators, those that look at every size that they are given.
    r"(?!(_softmax_backward_data|_log_softmax_backward_data|native_dropout_backward)$).*backward.*"
)
_DERIVATIVES = frozenset(
    (
        "convolution_backward threshold_backward gelu_backward tanh_backward sigmoid_backward "
        "silu_backward mish_backward elu_backward leaky_relu_backward hardtanh_backward "
        "hardswish_backward hardsigmoid_backward softplus_backward log_sigmoid_backward "
        "softshrink_backward hardshrink_backward logit_backward glu_backward "
        "mse_loss_backward smooth_l1_loss_backward huber_loss_backward "
        "_softmax_backward_data _log_softmax_backward_data "
        "avg_pool2d_backward _adaptive_avg_pool2d_backward"
    ).split()
)
"""Derivatives that training on the lazy device needs and whose kernels check what they are given.
Those that trust indices or sizes (`nll_loss_backward`, `embedding_dense_backward`, the norms') are
left out: `genie.lazy` composes them of operators that check."""
_TYPES = {
    "Tensor", "Tensor?", "Tensor[]", "Tensor?[]", "int", "int?", "SymInt", "SymInt?", "int[]",
    "SymInt[]", "int[]?", "SymInt[]?", "float", "float?", "float[]", "float[]?", "bool", "bool?",
    "bool[]", "str", "str?", "Scalar", "Scalar?", "Scalar[]", "ScalarType", "ScalarType?",
    "Layout", "Layout?", "Device", "Device?", "MemoryFormat", "MemoryFormat?", "Generator?",
}  # fmt: skip
_RETURNS = {"Tensor", "Tensor[]"}


def type_text(kind: Any) -> str:
    """A schema type as the table writes it: `List[Optional[T]]` spelled `T?[]`, sizes dropped."""
    text = str(kind)
    while True:
        shorter = re.sub(r"Optional\[([^\[\]]*(?:\[\])?[^\[\]]*)\]", r"\1?", text)
        shorter = re.sub(r"List\[([^\[\]]*\??)\]", r"\1[]", shorter)
        if shorter == text:
            return text.replace("number", "Scalar")
        text = shorter


def schema_hash(overload: Any) -> str:
    """First 16 hex digits of the SHA-256 of the overload's schema text."""
    return hashlib.sha256(str(overload._schema).encode()).hexdigest()[:16]


def _describe(overload: Any, base: str) -> dict[str, Any] | None:
    if base in _DERIVATIVES:
        return _entry(overload)
    if base.startswith("_") and not _ALLOWED_UNDERSCORE.fullmatch(base):
        return None
    if _DENIED.fullmatch(base):
        return None
    return _entry(overload)


def _entry(overload: Any) -> dict[str, Any] | None:
    schema = overload._schema
    args = []
    for a in schema.arguments:
        kind = type_text(a.real_type)
        alias = a.alias_info
        if kind not in _TYPES or (alias and alias.is_write and (a.kwarg_only or a.is_out)):
            return None
        mark = "" if alias is None else "!" if alias.is_write else "~"
        default = "=" if a.has_default_value() else ""
        args.append(f"{'*' if a.kwarg_only else ''}{mark}{a.name}:{kind}{default}")
    returns = [type_text(r.real_type) for r in schema.returns]
    if not set(returns) <= _RETURNS:
        return None
    entry: dict[str, Any] = {"schema": schema_hash(overload), "args": args, "returns": returns}
    if torch.Tag.nondeterministic_seeded in overload.tags:
        entry["seeded"] = True
    return entry


def generate() -> dict[str, Any]:
    """The table for the installed torch: {"torch": version, "ops": {overload: entry}}."""
    ops = {}
    for qualified in sorted(torch._C._dispatch_get_all_op_names()):
        if not qualified.startswith("aten::"):
            continue
        base, _, name = qualified.removeprefix("aten::").partition(".")
        packet = getattr(torch.ops.aten, base, None)
        overload = getattr(packet, name or "default", None)
        if overload is None:
            continue
        entry = _describe(overload, base)
        if entry is not None:
            ops[f"aten.{base}.{name or 'default'}"] = entry
    return {"torch": torch.__version__.split("+")[0], "ops": ops}


def dumps(table: dict[str, Any]) -> str:
    """The file's text: one overload on one line."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in table["ops"].items()]
    body = ",\n".join(lines)
    return f'{{"torch": {json.dumps(table["torch"])}, "ops": {{\n{body}\n}}}}\n'


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(dumps(generate()), encoding="ascii")
