"""What the lazy device did, and which lines of the program made it wait."""

from __future__ import annotations

import linecache
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from genie_schemas.errors import Place

__all__ = ["COUNTERS", "Counters", "Site", "user_line", "user_place"]

_OURS = tuple(
    str(Path(module.__file__).parent) + "/"
    for name in ("torch", "genie")
    if (module := sys.modules.get(name)) is not None and module.__file__
)


@dataclass(frozen=True)
class Site:
    """A line of the user's program that did something, and what."""

    line: str
    what: str


def _user_frame() -> tuple[str, int] | None:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and not name.startswith("<"):
            return name, frame.f_lineno
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def user_line() -> str:
    """Name, as "file:line", the innermost frame that is neither torch's nor Genie's."""
    found = _user_frame()
    return f"{found[0]}:{found[1]}" if found else "unknown (a thread of torch's)"


def user_place() -> Place | None:
    """The place of `user_line`, with its source line, for an error."""
    found = _user_frame()
    if found is None:
        return None
    text = linecache.getline(*found).rstrip("\n")
    indent = len(text) - len(text.lstrip())
    return Place(*found, indent + 1, text, max(1, len(text) - indent))


class Counters:
    """Totals since the program began, or since the last `reset`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.totals: Counter[str] = Counter()
        self._forgotten: Counter[str] = Counter()
        self.syncs: Counter[Site] = Counter()
        self.fallbacks: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a total."""
        with self._lock:
            self.totals[name] += amount

    def synchronised(self, why: str) -> None:
        """The program waited for the device, for this reason."""
        site = Site(user_line(), why)
        with self._lock:
            self.syncs[site] += 1
            self.totals["synchronisations"] += 1

    def fell_back(self, op: str, why: str) -> bool:
        """An operator ran on the host; whether this is the first time for this reason."""
        with self._lock:
            self.fallbacks[op, why] += 1
            return self.fallbacks[op, why] == 1

    def ever(self, name: str) -> int:
        """A total since the program began, whatever was reset meanwhile."""
        with self._lock:
            return self._forgotten[name] + self.totals[name]

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._forgotten.update(self.totals)
            self.totals.clear()
            self.syncs.clear()
            self.fallbacks.clear()


COUNTERS = Counters()
