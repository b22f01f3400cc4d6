"""Whether a graph is a causal language model: from its structure, never from names.

A token sequence goes in, as integers that index a table; attention lets each position see itself
and what is before it; and for each position a vector of scores comes out, longer than any row of
the sequence's own width would need.
"""

from __future__ import annotations

from dataclasses import dataclass

from genie.graph.ir import Graph, Node, Value
from genie_schemas.args import Ref
from genie_schemas.types import parse_type

__all__ = ["Verdict", "causal_lm"]

_ATTENTION = "aten.scaled_dot_product_attention.default"
_SOFTMAX = ("aten.softmax.int", "aten._softmax.default")
_TRIANGLES = ("aten.le.Tensor", "aten.ge.Tensor", "aten.lt.Tensor", "aten.gt.Tensor")
_CUTS = ("aten.tril.default", "aten.triu.default", "aten.tril_.default", "aten.triu_.default")


@dataclass(frozen=True)
class Verdict:
    """Whether it holds, and in words what speaks for or against it."""

    holds: bool
    reason: str


def causal_lm(graph: Graph) -> Verdict:
    """Whether the forward of one integer input [batch, tokens] is a causal language model's."""
    if not _looks_up(graph):
        return Verdict(False, "its input does not index a table of embeddings")
    if not any(map(_attends, graph.nodes)):
        return Verdict(False, "it has no attention")
    if not _is_causal(graph):
        return Verdict(False, "its attention sees every position, not only those before")
    if not _scores(graph):
        return Verdict(False, "it gives no scores over the table's rows for each position")
    return Verdict(True, "token ids, causal attention, scores over the vocabulary")


def _looks_up(graph: Graph) -> bool:
    table = graph.table
    return any(
        node.op == "aten.embedding.default"
        and isinstance(node.args[1], Ref)
        and parse_type(table[node.args[1].name].type).dtype in ("i64", "i32")
        for node in graph.nodes
    )


def _attends(node: Node) -> bool:
    return node.op == _ATTENTION or node.op in _SOFTMAX


def _is_causal(graph: Graph) -> bool:
    """An attention that the kernel masks causally, or a mask that comes of comparing positions."""
    ops = {node.op for node in graph.nodes}
    for node in graph.nodes:
        if node.op == _ATTENTION:
            flag = dict(node.kwargs).get("is_causal", node.args[5] if len(node.args) > 5 else False)
            if flag is True:
                return True
    counts = any(op.startswith("aten.arange.") for op in ops)
    return bool(ops.intersection(_CUTS)) or (counts and bool(ops.intersection(_TRIANGLES)))


def _scores(graph: Graph) -> bool:
    """An output [batch, tokens, rows of the table that the tokens index]."""
    rows = {
        parse_type(graph.table[node.args[0].name].type).shape[0].text
        for node in graph.nodes
        if node.op == "aten.embedding.default" and isinstance(node.args[0], Ref)
    }
    given = parse_type(graph.inputs[0].value.type).shape if graph.inputs else ()
    for output in graph.outputs:
        value: Value | None = graph.table.get(output.value or "")
        shape = parse_type(value.type).shape if value is not None else ()
        if len(shape) == 3 and shape[:2] == given[:2] and shape[2].text in rows:
            return True
    return False
