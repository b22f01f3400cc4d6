"""Tagged arguments of operators: how a plan writes what a call receives.

null, true, 7                 none, bool, int (|int| < 2^53)
{"i": "9223372036854775807"}  a wider int
{"f": "0x1.8p+1"}             float (hex; also inf, -inf, nan)
{"c": ["0x1p+0", "0x0p+0"]}   complex
{"s": "mean"}                 string
{"v": "a.conv2d"}             a value of the program
{"e": "batch*4"}              an integer expression over dimensions
{"dtype": "f32"} {"device": "here"} {"layout": "strided"} {"memory_format": "channels_last"}
{"program": "0f3a…"}          another program of the plan
[ … ]                         a list
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genie_schemas.expr import Expr, ExprError, parse
from genie_schemas.types import DTYPES

MEMORY_FORMATS = (
    "contiguous_format",
    "preserve_format",
    "channels_last",
    "channels_last_3d",
)
LAYOUTS = ("strided",)
_HEX_FLOAT = re.compile(r"-?0x[01](\.[0-9a-f]+)?p[+-][0-9]{1,4}")
_WIDE_INT = re.compile(r"-?[1-9][0-9]{15,19}")


class ArgError(ValueError):
    """The value is no tagged argument."""


@dataclass(frozen=True)
class Ref:
    """A reference to a value of the program."""

    name: str


@dataclass(frozen=True)
class Named:
    """A dtype, device, layout or memory format, by kind and name."""

    kind: str
    name: str


@dataclass(frozen=True)
class ProgramRef:
    """A reference to another program of the plan."""

    key: str


Arg = (
    None | bool | int | float | complex | str | Ref | Expr | Named | ProgramRef | tuple["Arg", ...]
)


def float_text(value: float) -> str:
    """The canonical text of a float: its hex form, or inf, -inf, nan."""
    return value.hex() if math.isfinite(value) else repr(value)


def decode(data: Any) -> Arg:
    """Read one tagged argument of parsed JSON; ArgError says what is wrong with it."""
    if data is None or isinstance(data, bool | int):
        return data
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    if not isinstance(data, dict) or len(data) != 1:
        raise ArgError(f"{str(data)[:80]} is no tagged argument")
    ((tag, body),) = data.items()
    return _decode_tagged(tag, body)


def _decode_tagged(tag: str, body: Any) -> Arg:
    if tag == "c":
        if not isinstance(body, list) or len(body) != 2:
            raise ArgError("a complex number is a list of two floats")
        return complex(_float(body[0]), _float(body[1]))
    if not isinstance(body, str):
        raise ArgError(f"the tag {tag!r} takes a string")
    if tag == "v":
        return Ref(body)
    if tag == "s":
        return body
    if tag == "f":
        return _float(body)
    if tag == "i":
        if not _WIDE_INT.fullmatch(body) or abs(value := int(body)) < 2**53:
            raise ArgError(f"{body[:40]!r} is no decimal integer of 2^53 or more")
        return value
    if tag == "e":
        try:
            return parse(body)
        except ExprError as error:
            raise ArgError(f"{body[:80]!r}: {error}") from None
    if tag == "program":
        return ProgramRef(body)
    allowed = {
        "dtype": tuple(DTYPES),
        "device": ("here",),
        "layout": LAYOUTS,
        "memory_format": MEMORY_FORMATS,
    }.get(tag)
    if allowed is None:
        raise ArgError(f"unknown tag {tag!r}")
    if body not in allowed:
        raise ArgError(f"unknown {tag} {body[:40]!r}; known: {', '.join(allowed)}")
    return Named(tag, body)


def _float(text: Any) -> float:
    if isinstance(text, str):
        if text in ("inf", "-inf", "nan"):
            return float(text)
        if _HEX_FLOAT.fullmatch(text):
            try:
                value = float.fromhex(text)
            except OverflowError:
                value = math.inf
            if value.hex() == text:
                return value
    raise ArgError(f"{str(text)[:40]!r} is no canonical float such as 0x1.8000000000000p+1")


def encode(value: Arg) -> Any:
    """Write one argument as JSON values; the inverse of `decode`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {"i": str(value)}
    if isinstance(value, float):
        return {"f": float_text(value)}
    if isinstance(value, complex):
        return {"c": [float_text(value.real), float_text(value.imag)]}
    if isinstance(value, str):
        return {"s": value}
    if isinstance(value, Ref):
        return {"v": value.name}
    if isinstance(value, Expr):
        return {"e": value.text}
    if isinstance(value, Named):
        return {value.kind: value.name}
    if isinstance(value, ProgramRef):
        return {"program": value.key}
    return [encode(item) for item in value]


def walk(value: Arg) -> Iterator[Arg]:
    """Every leaf of an argument, lists opened."""
    if isinstance(value, tuple):
        for item in value:
            yield from walk(item)
    else:
        yield value
