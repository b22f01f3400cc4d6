"""Names for the leaves of what forward returns; captured and eager results are named alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

from genie_schemas.names import Namer, clean

UPDATED = "updated"
"""Outputs with the new values of the model's own tensors start with this."""


def named_leaves(result: Any, is_leaf: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """Every leaf of a nested result with its name, in order.

    A bare leaf is `output`. Dict keys and field names are joined by dots; positions of a tuple
    stand under `output`: `(a, {"b": c})` gives `output.0` and `output.1.b`.
    """
    namer = Namer()
    return [(namer(clean(path)), leaf) for path, leaf in _walk(result, (), is_leaf)]


def _walk(
    item: Any, path: tuple[str, ...], is_leaf: Callable[[Any], bool]
) -> list[tuple[str, Any]]:
    if is_leaf(item):
        text = ".".join(path)
        bare = not text or text[0].isdigit()
        return [(f"output.{text}".rstrip(".") if bare else text, item)]
    if isinstance(item, Mapping):
        pairs = [(str(k), v) for k, v in item.items()]
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        pairs = list(zip(item._fields, item, strict=True))
    elif isinstance(item, list | tuple):
        pairs = [(str(i), v) for i, v in enumerate(item)]
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        pairs = [(f.name, getattr(item, f.name)) for f in dataclasses.fields(item)]
    else:
        return []
    return [leaf for key, value in pairs for leaf in _walk(value, (*path, key), is_leaf)]


def update_name(tensor: str, taken: Container[str] = ()) -> str:
    """Name of the output that holds the new value of the model's parameter or buffer `tensor`.

    `taken` are names that outputs have already.
    """
    name = f"{UPDATED}.{clean(tensor)}"
    while name in taken:
        name = f"{UPDATED}.{name}"
    return name
