"""Patterns from installed packages: entry points of the group `genie.patterns`.

A plugin runs in the compiler, with the compiler's rights: installing one is trusting it. But a
plugin that fails must not take the compile with it: what it raises is logged, and what it returns
is checked before anybody reads it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from genie.semantics.match import Facts, Match, Part, Pattern
from genie.semantics.patterns import BUILT_IN

__all__ = ["GROUP", "ask", "installed"]

GROUP = "genie.patterns"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MOST = 4096
"""Parts, and texts of evidence, that one answer may have."""

log = logging.getLogger("genie.semantics")


def installed() -> tuple[Pattern, ...]:
    """The built-in patterns, then those of plugins by name; what cannot be loaded is logged."""
    found: list[Pattern] = list(BUILT_IN)
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        pattern = _load(point)
        if pattern is not None:
            found.append(pattern)
    return tuple(found)


def _load(point: EntryPoint) -> Pattern | None:
    try:
        loaded = point.load()
        pattern = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        _warn(point.name, "load", f"{type(error).__name__}: {error}")
        return None
    name = getattr(pattern, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _warn(point.name, "load", f"its name is {str(name)[:40]!r}, not a short lower-case word")
        return None
    if not callable(getattr(pattern, "match", None)):
        _warn(point.name, "load", "it has no method match")
        return None
    return pattern  # type: ignore[no-any-return]


def ask(pattern: Pattern, facts: Facts) -> Match | None:
    """What a pattern answers; None when it raised or answered nonsense, which is logged."""
    try:
        found = pattern.match(facts)
    except Exception as error:
        _warn(pattern.name, "match", f"{type(error).__name__}: {error}")
        return None
    if found is None:
        return None
    try:
        wrong = _nonsense(found, len(facts.structure.calls))
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        _warn(pattern.name, "match", wrong)
        return None
    return found


def _nonsense(found: object, calls: int) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if not isinstance(found, Match):
        return f"it returned a {type(found).__name__}, not a Match"
    if not isinstance(found.kind, str) or not _NAME.fullmatch(found.kind):
        return f"the kind {str(found.kind)[:40]!r} is not a short lower-case word"
    sure = found.confidence
    if isinstance(sure, bool) or not isinstance(sure, int | float):
        return "the confidence is no number"
    if not math.isfinite(sure) or not 0 <= sure <= 1:
        return f"the confidence {sure} is not between 0 and 1"
    for texts in (found.evidence, found.missing):
        if len(texts) > _MOST or not all(isinstance(t, str) for t in texts):
            return "evidence is a list of texts"
    phases = found.phases.items()
    if not all(isinstance(k, str) and isinstance(v, str) and _NAME.fullmatch(v) for k, v in phases):
        return "phases map roles to short lower-case words"
    return _wrong_parts(found.parts, calls)


def _wrong_parts(parts: Sequence[object], calls: int) -> str:
    if len(parts) > _MOST:
        return f"{len(parts)} regions"
    for part in parts:
        if not isinstance(part, Part) or not isinstance(part.role, str):
            return "a region is no Part"
        if not _NAME.fullmatch(part.role) or not isinstance(part.index, int):
            return f"the role {part.role[:40]!r} is not a short lower-case word"
        if part.component and not (
            isinstance(part.component, str) and _NAME.fullmatch(part.component)
        ):
            return f"the component {str(part.component)[:40]!r} is not a short lower-case word"
        if not all(isinstance(n, int) and 0 <= n < calls for n in part.calls):
            return f"the region {part.role} names calls that the graph does not have"
    return ""


def _warn(name: str, doing: str, reason: str) -> None:
    log.warning(
        "the pattern %s is left out: %s: %s",
        name,
        doing,
        reason[:300],
        extra={"event": "pattern_failed", "pattern": name, "doing": doing, "reason": reason[:300]},
    )
