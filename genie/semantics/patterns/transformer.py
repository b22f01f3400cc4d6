"""Roles of a transformer's calls: embedding, each attention and feed-forward block, head."""

from __future__ import annotations

from collections.abc import Sequence

from genie.semantics.layers import Layered, layered, split_parallel
from genie.semantics.match import Facts, Part

__all__ = ["after_first", "blocks_of", "stack_parts"]


def blocks_of(facts: Facts, calls: Sequence[int]) -> Layered:
    """The layers of a component."""
    return layered(facts.structure, calls, facts.attentions)


def after_first(joint: Sequence[int], before: Sequence[int]) -> tuple[list[int], list[int]]:
    """Both, with the calls of `before` that run once `joint` has begun moved into it.

    So the keys that a decoder's layer makes of the encoder's result are the layer's own.
    """
    if not joint:
        return list(joint), list(before)
    late = [n for n in before if n > min(joint)]
    return sorted([*joint, *late]), [n for n in before if n < min(joint)]


def stack_parts(
    facts: Facts, stack: Layered, first: int = 0, head: str = "lm_head", component: str = "decoder"
) -> list[Part]:
    """Parts of one stack; blocks are numbered from `first` on."""
    parts = [Part("embedding", stack.before, first)] if stack.before else []
    number = first
    for block in stack.blocks:
        if block.kind == "attention":
            mine, beside = split_parallel(facts.structure, block)
            parts.append(Part("attention", mine, number, component))
            if beside:
                parts.append(Part("mlp", beside, number, component))
        else:
            parts.append(Part("mlp", block.calls, number, component))
        number += 1
    if stack.after:
        parts.append(Part(head, stack.after, first, "" if head == "lm_head" else component))
    return parts
