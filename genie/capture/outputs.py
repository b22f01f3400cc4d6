"""Output names of an exported program, from the structure that forward returned."""

from __future__ import annotations

import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from genie.graph.outputs import named_leaves


def output_names(program: ExportedProgram, count: int) -> list[str]:
    """One name a leaf, in the order of the exported outputs."""
    spec = program.call_spec.out_spec
    found: dict[int, str] = {}
    if spec is not None:
        try:
            numbered = pytree.tree_unflatten([_Leaf(i) for i in range(count)], spec)
        except Exception:  # a result class that takes tensors only: positions must do
            numbered = [_Leaf(i) for i in range(count)]
        leaves = named_leaves(numbered, lambda item: isinstance(item, _Leaf))
        found = {leaf.position: name for name, leaf in leaves}
    return [found.get(i, f"output.{i}") for i in range(count)]


def only_returned(node: fx.Node) -> bool:
    """Whether forward does nothing with the call's number but return it.

    Export's own assertions about the number (that a bool is 0 or 1) count for nothing.
    """
    return all(
        user.op == "output" or (not isinstance(user.meta.get("val"), Tensor) and _asserts(user))
        for user in node.users
    )


def _asserts(node: fx.Node) -> bool:
    name = str(node.target)
    return name.startswith("aten._assert_") or (
        not isinstance(node.target, OpOverload)
        and node.op == "call_function"
        and all(_asserts(user) for user in node.users)
    )


class _Leaf:
    """Stands for the output at a position."""

    def __init__(self, position: int) -> None:
        self.position = position
