"""Strict JSON in, canonical JSON out, and the digests made of it.

Strict: duplicate keys, floats, `-0`, NaN, integers of 2^53 and more, lone surrogates and nesting
beyond `MAX_DEPTH` are refused, so that one document has one meaning (RFC 8785 canonicalises it).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import rfc8785

MAX_DEPTH = 64
MAX_SAFE_INT = 2**53 - 1
_SURROGATE = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")


class StrictJsonError(ValueError):
    """The text is no strict JSON document. `line`, `column` (from 1) when known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJsonError(f"duplicate key {key!r}")
            seen.add(key)
    return result


def _int(text: str) -> int:
    if text == "-0":
        raise StrictJsonError("the number -0 is not canonical; write 0")
    if len(text) > 17 or not -MAX_SAFE_INT <= (value := int(text)) <= MAX_SAFE_INT:
        raise StrictJsonError(f"the integer {text[:40]} is beyond 2^53; write it as a string")
    return value


def _float(text: str) -> float:
    raise StrictJsonError(f"the number {text[:40]} is no integer; floats are hex strings here")


def loads(text: str) -> Any:
    """Parse strict JSON; StrictJsonError names the place when the syntax is at fault."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_float,
        )
    except json.JSONDecodeError as error:
        raise StrictJsonError(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise StrictJsonError(f"nested deeper than {MAX_DEPTH}") from None
    _check_depth(value)
    _check_surrogates(text, value)
    return value


def _check_surrogates(text: str, value: Any) -> None:
    """Refuse strings that UTF-8 cannot write. Most documents have no escape that could be one."""
    if not _SURROGATE.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise StrictJsonError("a string holds a lone surrogate, which is no character") from None


def _check_depth(value: Any) -> None:
    level: Iterable[Any] = [value]
    for _ in range(MAX_DEPTH):
        nested: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                nested.extend(v for v in item.values() if isinstance(v, dict | list))
            elif isinstance(item, list):
                nested.extend(v for v in item if isinstance(v, dict | list))
        if not nested:
            return
        level = nested
    raise StrictJsonError(f"nested deeper than {MAX_DEPTH}")


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 canonical form of plain JSON values."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """`sha256:` and 64 hex digits over the canonical form of `value`."""
    return "sha256:" + hashlib.sha256(canonical_bytes(value)).hexdigest()


def compact(value: Any) -> str:
    """One line of JSON in the given key order, a space after commas and colons, ASCII only."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
