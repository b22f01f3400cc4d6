"""Calls that are a whole attention or a whole layer, as the calls that they stand for.

Without gradients, torch's own transformer layers ask for one operator each, all weights in a row.
The analysis sees the same layers as in an exported model, which has no such operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from genie.graph.ir import Node, Value
from genie_schemas import optable
from genie_schemas.args import Arg, Ref
from genie_schemas.types import parse_type

__all__ = ["opened"]

_LAYER = "aten._transformer_encoder_layer_fwd.default"
_ATTENTION = "aten._native_multi_head_attention.default"


def opened(node: Node, values: Mapping[str, Value], storage: Callable[[], int]) -> list[Node]:
    """The calls that a call stands for; itself alone where it is no layer of transformers.

    `values` has what it reads, `storage` numbers memory that nothing lies in yet. The last of the
    calls makes what the call made. An attention that also returns its weights, or takes keys from
    elsewhere, stays whole.
    """
    if node.op not in (_LAYER, _ATTENTION):
        return [node]
    info = optable.lookup(node.op)
    assert info is not None  # noqa: S101 - a plan was made of it
    given = dict(zip((a.name for a in info.args), node.args, strict=True))
    opening = _Opening(node, given, values, storage)
    if node.op == _LAYER:
        opening.layer()
    elif given["need_weights"] is False and given["query"] == given["key"] == given["value"]:
        opening.attention(given["query"], given["num_head"])
    else:
        return [node]
    return opening.closed()


class _Opening:
    """One call being opened. Activations are [batch, tokens, width]."""

    def __init__(
        self,
        node: Node,
        given: Mapping[str, Arg],
        values: Mapping[str, Value],
        storage: Callable[[], int],
    ) -> None:
        made = node.results[0]
        assert made is not None  # noqa: S101 - both operators return a tensor
        self.node, self.made = node, made
        self.given, self.values, self.storage = given, values, storage
        self.nodes: list[Node] = []
        kind = parse_type(made.type)
        self.dtype = kind.dtype
        self.shape = kind.sizes({})

    def layer(self) -> None:
        """Attention and a feed-forward part, each with its residual, and a norm before or after."""
        x, given = self.given["src"], self.given
        first = given["norm_first"] is True
        seen = self.attention(self.norm(x, 1) if first else x, given["num_heads"])
        x = self.call("add.Tensor", (x, seen))
        x = x if first else self.norm(x, 1)
        inner = self.norm(x, 2) if first else x
        bias = given["ffn_bias_1"]
        width = parse_type(self.values[bias.name].type).sizes({}) if isinstance(bias, Ref) else ()
        wide = (*self.shape[:-1], *width)
        inner = self.call("linear.default", (inner, given["ffn_weight_1"], bias), wide)
        inner = self.call("gelu.default" if given["use_gelu"] else "relu.default", (inner,), wide)
        inner = self.call("linear.default", (inner, given["ffn_weight_2"], given["ffn_bias_2"]))
        x = self.call("add.Tensor", (x, inner))
        if not first:
            self.norm(x, 2)

    def attention(self, x: Arg, heads: Arg) -> Arg:
        """Of every token to every token, in `heads` parts of the width."""
        given, (batch, tokens, width) = self.given, self.shape
        count = heads if isinstance(heads, int) else 1
        apart = (batch, tokens, count, width // count)
        turned = (batch, count, tokens, width // count)
        row = self.call(
            "linear.default",
            (x, given["qkv_weight"], given["qkv_bias"]),
            (batch, tokens, 3 * width),
        )
        parts = []
        for place in range(3):
            part = self.call("slice.Tensor", (row, 2, place * width, (place + 1) * width))
            part = self.call("view.default", (part, apart), apart)
            parts.append(self.call("transpose.int", (part, 1, 2), turned))
        seen = self.call("scaled_dot_product_attention.default", (*parts, given["mask"]), turned)
        seen = self.call("transpose.int", (seen, 1, 2), apart)
        seen = self.call("reshape.default", (seen, self.shape))
        return self.call("linear.default", (seen, given["proj_weight"], given["proj_bias"]))

    def norm(self, x: Arg, number: int) -> Arg:
        """The layer's first or second norm."""
        weight, bias = (self.given[f"norm_{part}_{number}"] for part in ("weight", "bias"))
        return self.call(
            "layer_norm.default", (x, (self.shape[-1],), weight, bias, self.given["eps"])
        )

    def call(self, op: str, args: tuple[Arg, ...], shape: tuple[int, ...] = ()) -> Arg:
        """One more call; what it makes has the shape of the whole's result where none is said."""
        text = f"{self.dtype}[{','.join(map(str, shape or self.shape))}]"
        made = Value(f"{self.made.name}.{len(self.nodes)}", text, self.storage())
        self.nodes.append(Node(f"aten.{op}", args, (), (made,), self.node.module))
        return Ref(made.name)

    def closed(self) -> list[Node]:
        """The calls, the last of which makes what the whole made."""
        *before, last = self.nodes
        return [*before, Node(last.op, last.args, last.kwargs, (self.made,), last.module)]
