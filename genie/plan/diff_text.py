"""The difference of two plans for people and for programs."""

from __future__ import annotations

from typing import Any

from genie.plan.diff import Change, Difference
from genie.plan.text import clip, short_digest

__all__ = ["difference_json", "difference_text"]

LISTED = 12
"""Changes of one kind that the text lists; the JSON values hold them all."""

_MARKS = {"added": "+", "removed": "-", "moved": ">", "changed": "~"}


def difference_text(found: Difference, a: str, b: str) -> str:
    """The difference for people: one line a change, grouped by part, newline at the end."""
    if found.equal:
        note = f"; {' and '.join(found.aside)} differ, which nobody executes" if found.aside else ""
        return f"equal: {short_digest(found.digests[0])}{note}\n"
    lines = [f"{a} ({short_digest(found.digests[0])}) -> {b} ({short_digest(found.digests[1])})"]
    groups: dict[str, list[Change]] = {}
    for change in found.changes:
        groups.setdefault(change.what, []).append(change)
    for changes in groups.values():
        for change in changes[:LISTED]:
            named = f" {clip(change.name)}" if change.name else ""
            lines.append(f"  {_MARKS[change.kind]} {change.what}{named}: {change.text}")
            lines += [f"      {detail}" for detail in change.details]
        if len(changes) > LISTED:
            lines.append(f"    and {len(changes) - LISTED} more of {changes[0].what}")
    return "\n".join(lines) + "\n"


def difference_json(found: Difference) -> dict[str, Any]:
    """`{equal, changes: [{what, kind, name, text, details}]}` as plain JSON values."""
    return {
        "equal": found.equal,
        "changes": [
            {
                "what": c.what,
                "kind": c.kind,
                "name": c.name,
                "text": c.text,
                "details": list(c.details),
            }
            for c in found.changes
        ],
    }
