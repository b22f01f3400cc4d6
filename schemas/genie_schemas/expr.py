"""Integer expressions over symbolic dimensions: the only arithmetic that a plan may hold.

Grammar (no eval anywhere; a recursive-descent parser over at most `MAX_LENGTH` characters):

    sum     := product (("+" | "-") product)*
    product := unary (("*" | "//" | "%") unary)*
    unary   := "-" unary | atom
    atom    := integer | dimension | "(" sum ")" | ("min" | "max") "(" sum ("," sum)* ")"

`//` and `%` round towards minus infinity, as Python's do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 4096
MAX_DEPTH = 64
MAX_BITS = 128
"""A value wider than this is refused: no size or index of a real machine needs more."""

_TOKEN = re.compile(r"\s*(?:(\d{1,40})|([A-Za-z_][A-Za-z0-9_]*)|(//|[-+*%(),]))")


class ExprError(ValueError):
    """The text is no integer expression, names an unknown dimension, or leaves its bounds."""


Node = tuple[str, tuple["Node | int | str", ...]]


@dataclass(frozen=True)
class Expr:
    """A parsed expression. `text` is what was parsed; `names` the dimensions it uses."""

    text: str
    node: Node
    names: frozenset[str]

    def evaluate(self, dims: Mapping[str, int]) -> int:
        """Return the value for these dimension sizes; ExprError for an unknown dimension."""
        return _evaluate(self.node, dims)

    def bounds(self, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """Return (lower, upper) by interval arithmetic; exact for monotone expressions."""
        return _bounds(self.node, ranges)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        self.names: set[str] = set()
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise ExprError(f"unexpected character {stripped[position]!r} in {text[:80]!r}")
            position = match.end()
            for kind, value in zip(("int", "name", "op"), match.groups(), strict=True):
                if value is not None:
                    self.tokens.append((kind, value))

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise ExprError("the expression ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, value: str) -> None:
        if self.peek() != value:
            raise ExprError(f"expected {value!r}, found {self.peek() or 'the end'!r}")
        self.at += 1

    def sum(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ExprError(f"nested deeper than {MAX_DEPTH}")
        left = self.product(depth)
        while self.peek() in ("+", "-"):
            _, op = self.take()
            left = (op, (left, self.product(depth)))
        return left

    def product(self, depth: int) -> Node:
        left = self.unary(depth)
        while self.peek() in ("*", "//", "%"):
            _, op = self.take()
            left = (op, (left, self.unary(depth)))
        return left

    def unary(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ExprError(f"nested deeper than {MAX_DEPTH}")
        if self.peek() == "-":
            self.take()
            return ("neg", (self.unary(depth + 1),))
        return self.atom(depth)

    def atom(self, depth: int) -> Node:
        kind, value = self.take()
        if kind == "int":
            return ("int", (int(value),))
        if kind == "name":
            if value in ("min", "max") and self.peek() == "(":
                self.take()
                parts = [self.sum(depth + 1)]
                while self.peek() == ",":
                    self.take()
                    parts.append(self.sum(depth + 1))
                self.expect(")")
                return (value, tuple(parts))
            self.names.add(value)
            return ("dim", (value,))
        if value == "(":
            inner = self.sum(depth + 1)
            self.expect(")")
            return inner
        raise ExprError(f"unexpected {value!r}")


@lru_cache(maxsize=65536)
def parse(text: str) -> Expr:
    """Parse `text`; ExprError says what is wrong with it."""
    if len(text) > MAX_LENGTH:
        raise ExprError(f"longer than {MAX_LENGTH} characters")
    parser = _Parser(text)
    node = parser.sum(0)
    if parser.at != len(parser.tokens):
        raise ExprError(f"unexpected {parser.peek()!r} after the end of {text[:80]!r}")
    return Expr(text, node, frozenset(parser.names))


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise ExprError(f"a value of more than {MAX_BITS} bits")
    return value


def _evaluate(node: Node, dims: Mapping[str, int]) -> int:
    op, parts = node
    if op == "int":
        return _bounded(int(parts[0]))  # type: ignore[arg-type]
    if op == "dim":
        name = str(parts[0])
        if name not in dims:
            raise ExprError(f"unknown dimension {name!r}")
        return dims[name]
    values = [_evaluate(part, dims) for part in parts]  # type: ignore[arg-type]
    return _bounded(_apply(op, values))


def _apply(op: str, values: list[int]) -> int:
    if op == "neg":
        return -values[0]
    if op == "min":
        return min(values)
    if op == "max":
        return max(values)
    left, right = values
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    if right == 0:
        raise ExprError("division by zero")
    return left // right if op == "//" else left % right


def _bounds(node: Node, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    op, parts = node
    if op == "int":
        value = _bounded(int(parts[0]))  # type: ignore[arg-type]
        return value, value
    if op == "dim":
        name = str(parts[0])
        if name not in ranges:
            raise ExprError(f"unknown dimension {name!r}")
        return ranges[name]
    spans = [_bounds(part, ranges) for part in parts]  # type: ignore[arg-type]
    if op == "neg":
        return -spans[0][1], -spans[0][0]
    if op in ("min", "max"):
        low, high = [s[0] for s in spans], [s[1] for s in spans]
        return _apply(op, low), _apply(op, high)
    (a, b), (c, d) = spans
    if op == "+":
        return _bounded(a + c), _bounded(b + d)
    if op == "-":
        return _bounded(a - d), _bounded(b - c)
    if op == "*":
        corners = [_bounded(x * y) for x in (a, b) for y in (c, d)]
        return min(corners), max(corners)
    if c <= 0 <= d:
        raise ExprError("division by a range that holds zero")
    if op == "//":
        corners = [x // y for x in (a, b) for y in (c, d)]
        return min(corners), max(corners)
    # Python's remainder has the divisor's sign: [0, d-1] or [c+1, 0].
    return (0, d - 1) if c > 0 else (c + 1, 0)
