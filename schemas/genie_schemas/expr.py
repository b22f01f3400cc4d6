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
from typing import TypeVar

MAX_LENGTH = 4096
MAX_DEPTH = 64
MAX_BITS = 128
"""A value wider than this is refused: no size or index of a real machine needs more."""

_TOKEN = re.compile(r"\s*(?:([0-9]{1,40})|([A-Za-z_][A-Za-z0-9_]*)|(//|[-+*%(),]))", re.ASCII)


class ExprError(ValueError):
    """The text is no integer expression, names an unknown dimension, or leaves its bounds."""


Token = tuple[str, int | str]
"""Of the postfix form: ("int", 7), ("dim", "batch"), or an operator and its number of operands.

Postfix and not a tree, so that working on an expression needs no recursion: a sum of a thousand
terms would be a tree a thousand deep.
"""


@dataclass(frozen=True)
class Expr:
    """A parsed expression. `text` is what was parsed; `names` the dimensions it uses."""

    text: str
    code: tuple[Token, ...]
    names: frozenset[str]

    def evaluate(self, dims: Mapping[str, int]) -> int:
        """Return the value for these dimension sizes; ExprError for an unknown dimension."""
        stack: list[int] = []
        for op, operand in self.code:
            if op == "int":
                stack.append(_bounded(int(operand)))
            elif op == "dim":
                stack.append(_lookup(dims, str(operand)))
            else:
                count = int(operand)
                stack[-count:] = [_bounded(_apply(op, stack[-count:]))]
        return stack[0]

    def bounds(self, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """Return (lower, upper) by interval arithmetic; exact for monotone expressions."""
        stack: list[tuple[int, int]] = []
        for op, operand in self.code:
            if op == "int":
                value = _bounded(int(operand))
                stack.append((value, value))
            elif op == "dim":
                stack.append(_lookup(ranges, str(operand)))
            else:
                count = int(operand)
                stack[-count:] = [_span(op, stack[-count:])]
        return stack[0]


class _Parser:
    """Recursive descent over the tokens; `code` collects the postfix form."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        self.names: set[str] = set()
        self.code: list[Token] = []
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

    def sum(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ExprError(f"nested deeper than {MAX_DEPTH}")
        self.product(depth)
        while self.peek() in ("+", "-"):
            _, op = self.take()
            self.product(depth)
            self.code.append((op, 2))

    def product(self, depth: int) -> None:
        self.unary(depth)
        while self.peek() in ("*", "//", "%"):
            _, op = self.take()
            self.unary(depth)
            self.code.append((op, 2))

    def unary(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ExprError(f"nested deeper than {MAX_DEPTH}")
        if self.peek() == "-":
            self.take()
            self.unary(depth + 1)
            self.code.append(("neg", 1))
        else:
            self.atom(depth)

    def atom(self, depth: int) -> None:
        kind, value = self.take()
        if kind == "int":
            self.code.append(("int", int(value)))
        elif kind == "name" and value in ("min", "max") and self.peek() == "(":
            self.take()
            self.sum(depth + 1)
            count = 1
            while self.peek() == ",":
                self.take()
                self.sum(depth + 1)
                count += 1
            self.expect(")")
            self.code.append((value, count))
        elif kind == "name":
            self.names.add(value)
            self.code.append(("dim", value))
        elif value == "(":
            self.sum(depth + 1)
            self.expect(")")
        else:
            raise ExprError(f"unexpected {value!r}")


@lru_cache(maxsize=65536)
def parse(text: str) -> Expr:
    """Parse `text`; ExprError says what is wrong with it."""
    if len(text) > MAX_LENGTH:
        raise ExprError(f"longer than {MAX_LENGTH} characters")
    parser = _Parser(text)
    parser.sum(0)
    if parser.at != len(parser.tokens):
        raise ExprError(f"unexpected {parser.peek()!r} after the end of {text[:80]!r}")
    return Expr(text, tuple(parser.code), frozenset(parser.names))


T = TypeVar("T")


def _lookup(table: Mapping[str, T], name: str) -> T:
    if name not in table:
        raise ExprError(f"unknown dimension {name!r}")
    return table[name]


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise ExprError(f"a value of more than {MAX_BITS} bits")
    return value


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


def _span(op: str, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """The bounds of an operator's result from those of its operands."""
    if op == "neg":
        return -spans[0][1], -spans[0][0]
    if op in ("min", "max"):
        return _apply(op, [s[0] for s in spans]), _apply(op, [s[1] for s in spans])
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
