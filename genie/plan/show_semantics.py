"""`genie plan show --semantics`: what the compiler understood of a model, as text or drawing.

It comes from `advisory.semantics`, which may hold anything, and from the plan's entry points,
loops and state; like all of `plan show`, it shows what can be read and never raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genie.plan.show import Shown
from genie.plan.summary import items, largest_bytes, mapping, number, texts
from genie.plan.text import clip, columns, count, size_text

__all__ = ["semantics_dot", "semantics_text"]

_PHASES = ("prefill", "decode")


def semantics_text(shown: Shown) -> str:
    """Kind, phases, state, components, what flows between them, and regions; newline at the end."""
    found = shown.summary.semantics
    if not found:
        return "the plan says nothing of its model's semantics\n"
    by = f", found by {clip(found['by'])}" if "by" in found else ""
    lines = [f"kind {clip(found.get('kind'))}, confidence {clip(found.get('confidence'))}{by}"]
    lines += [f"  because {text}" for text in texts(found.get("evidence"))]
    near = mapping(found.get("nearest"))
    if near:
        lines.append(f"nearest: {clip(near.get('pattern'))}, {clip(near.get('confidence'))}")
        lines += [f"  missing: {text}" for text in texts(near.get("missing"))]
    for title, rows in (
        ("phases", list(_phases(shown, found))),
        ("state", list(_state(shown))),
        ("residency, at the largest sizes", list(_residency(found))),
        ("components", list(_components(found))),
        ("flows", list(_flows(shown, found))),
        ("regions", list(_regions(found))),
    ):
        if rows:
            lines += [title, *columns(rows)]
    return "\n".join(lines) + "\n"


def _phases(shown: Shown, found: Any) -> Iterator[tuple[str, ...]]:
    told = mapping(found.get("entrypoints"))
    for name in mapping(shown.data.get("entrypoints")):
        entry = mapping(told.get(name))
        known = entry.get("phase") or (name if name in _PHASES else None)
        if known is None:
            continue
        inputs = mapping(entry.get("inputs"))
        carried = ", ".join(f"{clip(n)}: {clip(m)}" for n, m in inputs.items())
        yield clip(known), f"entry point {clip(name)}", carried
    for name, loop in mapping(shown.data.get("loops")).items():
        v = mapping(loop)
        turns = f"{clip(v.get('entry'))}, then {clip(v.get('body'))} for each token"
        yield clip(name), "loop", turns


def _state(shown: Shown) -> Iterator[tuple[str, ...]]:
    """Rows that grow are a cache of keys and values; others are replaced whole."""
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in mapping(shown.data.get("state")).values():
        state = mapping(entry)
        kind = "KV cache" if state.get("update") == "append" else "state"
        groups.setdefault((kind, clip(state.get("device"))), []).append(clip(state.get("type")))
    for (kind, device), types in groups.items():
        sizes = [largest_bytes(shown.data, text) for text in types]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        how = "append" if kind == "KV cache" else "replace"
        yield kind, count(len(types), "tensor"), f"on {device}", size_text(total), how


def _residency(found: Any) -> Iterator[tuple[str, ...]]:
    for entry, told in mapping(found.get("entrypoints")).items():
        for kind, row in mapping(mapping(told).get("residency")).items():
            held = mapping(row)
            values, size = number(held.get("values")), number(held.get("bytes"))
            yield clip(entry), clip(kind), count(values or 0, "value"), size_text(size)


def _components(found: Any) -> Iterator[tuple[str, ...]]:
    for row in map(mapping, items(found.get("components"))):
        yield (
            clip(row.get("entrypoint")),
            clip(row.get("name")),
            clip(row.get("modality")) if row.get("modality") else "-",
            clip(row.get("phase")),
            count(number(row.get("ops")) or 0, "op"),
            f"{size_text(number(row.get('weight_bytes')))} weights",
            f"work {clip(row.get('work'))}",
            f"critical {clip(row.get('criticality'))}",
        )


def _flows(shown: Shown, found: Any) -> Iterator[tuple[str, ...]]:
    for row in map(mapping, items(found.get("flows"))):
        size = row.get("bytes")
        most = largest_bytes(shown.data, size, expression=True) if isinstance(size, str) else None
        yield (
            clip(row.get("entrypoint")),
            f"{clip(row.get('from'))} -> {clip(row.get('to'))}",
            count(number(row.get("values")) or 0, "value"),
            f"{clip(size)} B",
            f"at most {size_text(most)}",
            f"read {count(number(row.get('readers')) or 0, 'time')}",
        )


def _regions(found: Any) -> Iterator[tuple[str, ...]]:
    for row in map(mapping, items(found.get("regions"))):
        ops = count(number(row.get("ops")) or 0, "op")
        part = clip(row["component"]) if row.get("component") else ""
        yield clip(row.get("module")) or "(model)", clip(row.get("class")), ops, part


def semantics_dot(shown: Shown) -> str:
    """The blueprint as a drawing in Graphviz's DOT language."""
    from genie.semantics.export import dot

    found = shown.summary.semantics
    entries: dict[str, Any] = {}
    for part in ("components", "flows"):
        for row in map(mapping, items(found.get(part))):
            name = clip(row.get("entrypoint"))
            entries.setdefault(name, {"components": [], "flows": []})[part].append(row)
    return dot(entries)
