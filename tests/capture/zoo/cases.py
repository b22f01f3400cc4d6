"""How a module gets into the zoo, and the inputs that most of them take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.capture.compiling import with_forward

Case = tuple[nn.Module, dict[str, Any]]

VECTOR: dict[str, Any] = {"x": ("float32", ["b", 6])}
IMAGE: dict[str, Any] = {"x": ("float32", ["b", 3, 8, 8])}
SEQUENCE: dict[str, Any] = {"x": ("float32", ["b", 5, 8])}
TOKENS: dict[str, Any] = {"ids": {"dtype": "int64", "shape": ["b", 5], "low": 0, "high": 12}}

ZOO: dict[str, Callable[[], Case]] = {}

DIMS: dict[str, dict[str, tuple[int, int]]] = {
    # A slice of size 1 at the traced size would be fixed to 1.
    "slices_by_size": {"n": (4, 9)},
    "min_max_sizes": {"n": (3, 9), "b": (2, 8)},
}
"""Ranges of dimensions other than 1 to 8."""


def case(inputs: dict[str, Any]) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Add the decorated builder to the zoo."""

    def add(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert build.__name__ not in ZOO
        ZOO[build.__name__] = lambda: (build(), inputs)
        return build

    return add


def function(inputs: dict[str, Any], **parts: Any) -> Callable[[Callable[..., Any]], Any]:
    """Add a forward with these submodules, parameters and buffers to the zoo."""

    def add(forward: Callable[..., Any]) -> Callable[..., Any]:
        assert forward.__name__ not in ZOO

        def build() -> Case:
            torch.manual_seed(0)
            made = {
                k: p() if callable(p) and not isinstance(p, Tensor) else p for k, p in parts.items()
            }
            return with_forward(forward, **made), inputs

        ZOO[forward.__name__] = build
        return forward

    return add


linear = functools.partial(nn.Linear, 6, 6)
