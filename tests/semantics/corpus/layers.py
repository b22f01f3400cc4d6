"""What models of the corpus that are written here share."""

from __future__ import annotations

import itertools

from torch import nn

from tests.semantics.corpus.registry import Inputs, floats


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def features(
    model: nn.Module, name: str = "x", shape: tuple[int, ...] = (16,)
) -> tuple[nn.Module, Inputs]:
    """A model of one input, float32[b, *shape]."""
    return model, {name: floats(*shape)}
