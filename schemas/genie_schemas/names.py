"""Names inside a plan: what they may look like, and how free text becomes one."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 256
MAX_CLEAN = 104
"""Longest name that `clean` makes: a step id adds `/transfer@SRC->DST` (140) and a number."""
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.@>/\-]*$"
"""Values, constants, states, step ids: dotted module paths with `@device` and `a->b` suffixes."""

IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_\-]*$"
"""Device ids, dimension names, entry points, policies."""

_BAD = re.compile(r"[^A-Za-z0-9_.]")


def clean(text: str) -> str:
    """Turn any text into a dotted name of at most `MAX_CLEAN` characters.

    Other characters become `_`; of a longer text stay the beginning and a digest of all of it.
    """
    name = re.sub(r"\.{2,}", ".", _BAD.sub("_", text)).strip(".") or "_"
    if len(name) > MAX_CLEAN:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: MAX_CLEAN - 9]}.{digest}"
    return name


def identifier(text: str) -> str:
    """Turn any text into an identifier: other characters become `_`, before a digit stands one."""
    name = re.sub(r"[^A-Za-z0-9_\-]", "_", text)[:63]
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


class Namer:
    """Hands out unique names: the base itself first, then `base.2`, `base.3` and so on."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def reserve(self, name: str) -> None:
        """Keep `name` from being handed out."""
        self._used.add(name)

    def __call__(self, base: str) -> str:
        """Return `base`, or `base.N` with the first N that is free, and keep it."""
        name, n = base, 1
        while name in self._used:
            n += 1
            name = f"{base}.{n}"
        self._used.add(name)
        return name
