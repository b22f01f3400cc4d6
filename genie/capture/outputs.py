"""Names for the leaves of what forward returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from genie_schemas.names import Namer, clean


def output_names(program: ExportedProgram, count: int) -> list[str]:
    """One name a leaf: `output` for a bare tensor, dict keys and field names joined by dots,
    tuple positions under `output`: (a, {"b": c}) gives output.0 and output.1.b."""
    spec = program.call_spec.out_spec
    numbered: Any = None
    if spec is not None:
        try:
            numbered = pytree.tree_unflatten(list(range(count)), spec)
        except Exception:  # a class that refuses ints: fall back to positions
            numbered = list(range(count))
    found: dict[int, str] = {}
    _walk(numbered, (), found)
    namer = Namer()
    names = []
    for i in range(count):
        path = found.get(i, f"output.{i}")
        names.append(namer(clean(path)))
    return names


def _walk(item: Any, path: tuple[str, ...], found: dict[int, str]) -> None:
    if isinstance(item, bool):
        return
    if isinstance(item, int):
        text = ".".join(path)
        found[item] = text if text and not text[0].isdigit() else f"output.{text}".rstrip(".")
        return
    if isinstance(item, Mapping):
        pairs = [(str(k), v) for k, v in item.items()]
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        pairs = list(zip(item._fields, item, strict=True))
    elif isinstance(item, list | tuple):
        pairs = [(str(i), v) for i, v in enumerate(item)]
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        pairs = [(f.name, getattr(item, f.name)) for f in dataclasses.fields(item)]
    else:
        return
    for key, value in pairs:
        _walk(value, (*path, key), found)
