"""The scalar rules of the YAML 1.2 core schema, and what of it a spec may hold."""

from __future__ import annotations

import math
import re

from genie.spec.document import Scalar

__all__ = ["resolve", "unusable"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {
    spelling: value
    for word, value in (("true", True), ("false", False))
    for spelling in (word, word.title(), word.upper())
}
_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 64  # beyond 64 bits in every base; keeps int() away from huge input


def resolve(text: str) -> Scalar:
    """Value of a plain scalar: null, bool, int, float, or else the text itself.

    Numbers out of range come back as infinities, which `unusable` then names.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                return math.inf
            return int(text if base == 10 else text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.inf if _SPECIAL.fullmatch(text) else text


def unusable(value: object) -> str | None:
    """Why a spec cannot hold `value`, a scalar that a reader produced; None when it can."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "the integer does not fit into 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "the number is not finite, or out of range"
    return "dates and times are no values of a spec; write text in quotes"
