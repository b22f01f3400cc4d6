"""How a JSON Schema of ours changed, and which version bump is due for it.

A document format keeps one promise: every reader of a major version reads every document of the
same major version that is not newer than itself. So a change that only allows more is due a minor
version, and one that refuses what was allowed is due a major one. Titles, descriptions and the
order of keys are no changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Bump", "Drift", "SchemaChange", "schema_drift"]

Bump = Literal["none", "minor", "major"]

_PROSE = frozenset({"title", "description", "examples", "$schema", "$id", "$comment"})
_LOWER_BOUNDS = ("minimum", "minLength", "minItems", "exclusiveMinimum", "minProperties")
_UPPER_BOUNDS = ("maximum", "maxLength", "maxItems", "exclusiveMaximum", "maxProperties")


@dataclass(frozen=True)
class SchemaChange:
    """One change at a place of the schema; `narrows` when documents that were valid may not be."""

    at: str
    text: str
    narrows: bool


@dataclass(frozen=True)
class Drift:
    """All changes between two schemas."""

    changes: tuple[SchemaChange, ...]

    @property
    def bump(self) -> Bump:
        """The version bump that is due."""
        if any(change.narrows for change in self.changes):
            return "major"
        return "minor" if self.changes else "none"

    def __str__(self) -> str:
        return "\n".join(f"{'!' if c.narrows else '+'} {c.at}: {c.text}" for c in self.changes)


def schema_drift(old: dict[str, Any], new: dict[str, Any]) -> Drift:
    """Compare two JSON Schemas as pydantic writes them.

    Known keywords are judged one by one; whatever this function does not understand counts as
    narrowing, so that it can only ask for too much.
    """
    return Drift(tuple(_schema(old, new, "#")))


def _schema(old: Any, new: Any, at: str) -> Iterator[SchemaChange]:
    if old == new:
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield SchemaChange(at, f"was {_short(old)}, is {_short(new)}", _narrower(old, new))
        return
    for key in sorted(set(old) | set(new)):
        if key not in _PROSE and old.get(key) != new.get(key):
            yield from _keyword(key, old, new, at)


def _narrower(old: Any, new: Any) -> bool:
    """Of boolean schemas: True allows anything, False nothing."""
    return not (old is False or new is True)


def _keyword(key: str, old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[SchemaChange]:
    before, after = old.get(key), new.get(key)
    if key in ("properties", "$defs"):
        closed = key == "$defs" or old.get("additionalProperties") is False
        yield from _named(key, before or {}, after or {}, at, closed)
    elif key == "required":
        yield from _required(before or [], after or [], at)
    elif key in ("enum", "const"):
        yield from _enum(_values(old), _values(new), at)
    elif key in ("anyOf", "oneOf"):
        yield from _members(before or [], after or [], f"{at}/{key}")
    elif key in ("items", "additionalProperties", "propertyNames"):
        # Absent means that anything is allowed.
        absent = True
        yield from _schema(
            absent if before is None else before, absent if after is None else after, f"{at}/{key}"
        )
    elif key in _LOWER_BOUNDS or key in _UPPER_BOUNDS:
        yield SchemaChange(f"{at}/{key}", f"was {before}, is {after}", _tighter(key, before, after))
    elif key == "default":
        # Writers leave defaults out, so another default is another meaning of the same text.
        both = before is not None and after is not None
        yield SchemaChange(f"{at}/default", f"was {_short(before)}, is {_short(after)}", both)
    elif key == "discriminator":
        yield SchemaChange(f"{at}/{key}", "changed", after is not None and before is None)
    else:
        widens = after is None
        yield SchemaChange(f"{at}/{key}", f"was {_short(before)}, is {_short(after)}", not widens)


def _named(
    key: str, before: dict[str, Any], after: dict[str, Any], at: str, closed: bool
) -> Iterator[SchemaChange]:
    for name in before:
        if name not in after:
            # A definition alone refuses nothing: what referred to it has changed as well.
            yield SchemaChange(f"{at}/{key}/{name}", "is gone", key == "properties")
        else:
            yield from _schema(before[name], after[name], f"{at}/{key}/{name}")
    for name in after:
        if name not in before:
            # An open object allowed anything under that name.
            yield SchemaChange(f"{at}/{key}/{name}", "is new", not closed)


def _required(before: list[str], after: list[str], at: str) -> Iterator[SchemaChange]:
    for name in after:
        if name not in before:
            yield SchemaChange(f"{at}/required", f"{name} is now required", True)
    for name in before:
        if name not in after:
            yield SchemaChange(f"{at}/required", f"{name} is no longer required", False)


def _values(schema: dict[str, Any]) -> list[Any] | None:
    """The values that `enum` or `const` allows; None when any is."""
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _enum(before: list[Any] | None, after: list[Any] | None, at: str) -> Iterator[SchemaChange]:
    if before == after:
        return
    if before is None or after is None:
        yield SchemaChange(f"{at}/enum", "changed", after is not None)
        return
    for value in before:
        if value not in after:
            yield SchemaChange(f"{at}/enum", f"{value!r} is no longer allowed", True)
    for value in after:
        if value not in before:
            yield SchemaChange(f"{at}/enum", f"{value!r} is new", False)


def _members(before: list[Any], after: list[Any], at: str) -> Iterator[SchemaChange]:
    """Alternatives: those that are in both lists word for word are no change."""
    gone = [m for m in before if m not in after]
    come = [m for m in after if m not in before]
    for old, new in zip(gone, come, strict=False):
        yield from _schema(old, new, at)
    for old in gone[len(come) :]:
        yield SchemaChange(at, f"{_short(old)} is no longer allowed", True)
    for new in come[len(gone) :]:
        yield SchemaChange(at, f"{_short(new)} is new", False)


def _tighter(key: str, before: int | None, after: int | None) -> bool:
    if after is None:
        return False
    if before is None:
        return True
    return after > before if key in _LOWER_BOUNDS else after < before


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
