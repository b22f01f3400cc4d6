"""Operators by what they do, over exported and recorded graphs alike.

Names are without namespace and overload: `linear` is `aten.linear.default`. The trailing underscore
of an operator that works in place is left out.
"""

from __future__ import annotations

__all__ = [
    "ACTIVATION",
    "ATTENTION",
    "BAG",
    "COMPARISON",
    "CONVOLUTION",
    "LAYOUT",
    "LOOKUP",
    "NORMALIZATION",
    "POOLING",
    "PRODUCT",
    "RECURRENT",
    "TRIANGLE",
    "base_name",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ATTENTION = _words(
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu"
    " _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention"
    " _scaled_dot_product_attention_math _scaled_dot_product_cudnn_attention"
    " _scaled_dot_product_fused_attention_overrideable"
)
SOFTMAX = _words("softmax _softmax _safe_softmax")
CONVOLUTION = _words(
    "conv1d conv2d conv3d convolution _convolution convolution_overrideable conv_transpose1d"
    " conv_transpose2d conv_transpose3d mkldnn_convolution"
)
PRODUCT = _words("matmul bmm mm einsum baddbmm addmm addbmm mv dot tensordot bilinear")
"""Products of two tensors; with a weight they are layers, as `linear` always is."""
RECURRENT = _words(
    "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell mkldnn_rnn_layer"
    " _thnn_fused_lstm_cell _thnn_fused_gru_cell"
)
BAG = _words("embedding_bag _embedding_bag _embedding_bag_forward_only")
LOOKUP = BAG | {"embedding"}
NORMALIZATION = _words(
    "layer_norm native_layer_norm batch_norm native_batch_norm _native_batch_norm_legit"
    " _native_batch_norm_legit_no_training cudnn_batch_norm _batch_norm_impl_index group_norm"
    " native_group_norm instance_norm rms_norm _fused_rms_norm"
)
ACTIVATION = _words(
    "relu gelu silu mish hardswish hardtanh hardsigmoid leaky_relu elu selu celu relu6 softplus"
    " sigmoid tanh prelu glu"
)
POOLING = _words(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d mean amax"
    " max_pool2d_with_indices"
)
COMPARISON = _words("le lt ge gt")
TRIANGLE = _words("tril triu")
LAYOUT = _words(
    "view reshape _unsafe_view _reshape_alias flatten unflatten transpose t permute squeeze"
    " unsqueeze expand expand_as movedim swapaxes slice select narrow split split_with_sizes chunk"
    " unbind stack cat clone contiguous to _to_copy alias detach dropout lift_fresh_copy roll pad"
    " constant_pad_nd repeat as_strided numpy_T mT lift type_as getitem copy"
)
"""Operators that move elements and compute none."""


_SPELLED = dict.fromkeys(("_unsafe_view", "_reshape_alias"), "view")
"""What torch's composed operators ask for → what programs call it."""


def base_name(op: str) -> str:
    """`linear` of `aten.linear.default`, `add` of `aten.add_.Tensor`."""
    parts = op.split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    name = name.rstrip("_") if not name.endswith("__") else name
    return _SPELLED.get(name, name)
