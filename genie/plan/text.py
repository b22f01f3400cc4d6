"""Pieces of text that `plan show`, `plan diff` and `compile` share: sizes, calls, columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genie.graph.printer import show
from genie_schemas import args, canonical
from genie_schemas.args import ArgError

__all__ = ["call_text", "columns", "count", "few", "short_digest", "size_text"]

SHOWN = 256
"""Characters of one text of a plan that are shown; valid names are no longer."""


def size_text(nbytes: int | None) -> str:
    """Bytes as people read them, to one decimal: 512 B, 1.5 KiB, 86.6 MiB; "?" for None."""
    if nbytes is None:
        return "?"
    if abs(nbytes) < 1024:
        return f"{nbytes} B"
    size = float(nbytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def short_digest(digest: Any) -> str:
    """A digest's algorithm and first 12 digits."""
    text = clip(digest)
    kind, colon, digits = text.partition(":")
    return f"{kind}:{digits[:12]}" if colon else text[:12]


def count(number: int, noun: str) -> str:
    """A number and its noun, which must be regular: 1 step, 2 steps."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(clip(n) for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def clip(value: Any) -> str:
    """A value of a plan as text of bounded length."""
    text = value if isinstance(value, str) else canonical.compact(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def call_text(op: Any) -> str:
    """One operator call of a plan's JSON as the graph printer writes calls; never raises."""
    if not isinstance(op, dict):
        return clip(op)
    out = op.get("out")
    results = ", ".join("_" if v is None else clip(v) for v in out) if isinstance(out, list) else ""
    positional, keywords = op.get("args"), op.get("kwargs")
    shown = [_arg(a) for a in positional] if isinstance(positional, list) else []
    if isinstance(keywords, dict):
        shown += [f"{clip(k)}={_arg(v)}" for k, v in keywords.items()]
    return f"{results or '()'} = {clip(op.get('op'))}({', '.join(shown)})"


def _arg(data: Any) -> str:
    try:
        return show(args.decode(data))
    except ArgError:
        return clip(data)


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of text as lines with aligned columns; columns that are empty everywhere vanish."""
    if not rows:
        return []
    width = max(len(row) for row in rows)
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in padded) for i in range(width)]
    kept = [i for i in range(width) if widths[i]]
    return [(indent + "  ".join(row[i].ljust(widths[i]) for i in kept)).rstrip() for row in padded]
