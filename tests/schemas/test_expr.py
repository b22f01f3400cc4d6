"""Integer expressions: nothing but ExprError, Python's arithmetic, bounds that bound."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie_schemas.expr import MAX_BITS, MAX_DEPTH, MAX_LENGTH, ExprError, parse

NAMES = ["batch", "n", "min", "max", "_x1"]
RANGES = {"batch": (1, 64), "n": (0, 7), "min": (2, 2), "max": (1, 1000), "_x1": (3, 5)}

BINARY: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}

Tree = tuple[Any, ...]


def trees() -> st.SearchStrategy[Tree]:
    """Expression trees: ("int", 3), ("dim", "n"), ("neg", t), ("min", [t, …]), ("+", t, t)."""
    leaf = st.one_of(
        st.tuples(st.just("int"), st.integers(0, 300)),
        st.tuples(st.just("dim"), st.sampled_from(NAMES)),
    )

    def grow(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.just("neg"), inner),
            st.tuples(st.sampled_from(["min", "max"]), st.lists(inner, min_size=1, max_size=4)),
            st.tuples(st.sampled_from(sorted(BINARY)), inner, inner),
        )

    return st.recursive(leaf, grow, max_leaves=12)


def text(tree: Tree, spaces: str = "") -> str:
    kind, *parts = tree
    if kind in ("int", "dim"):
        return str(parts[0])
    if kind == "neg":
        return f"-({text(parts[0])})"
    if kind in ("min", "max"):
        return f"{kind}({f',{spaces}'.join(text(p) for p in parts[0])})"
    return f"({text(parts[0])}){spaces}{kind}{spaces}({text(parts[1])})"


def value(tree: Tree, dims: dict[str, int]) -> int:
    kind, *parts = tree
    if kind == "int":
        return int(parts[0])
    if kind == "dim":
        return dims[parts[0]]
    if kind == "neg":
        return -value(parts[0], dims)
    if kind in ("min", "max"):
        return (min if kind == "min" else max)(value(p, dims) for p in parts[0])
    return BINARY[kind](value(parts[0], dims), value(parts[1], dims))


def sizes() -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({n: st.integers(*bounds) for n, bounds in RANGES.items()})


@given(trees(), sizes(), st.sampled_from(["", " ", "\t\n"]))
def test_evaluates_as_python_does(tree: Tree, dims: dict[str, int], spaces: str) -> None:
    parsed = parse(text(tree, spaces))
    try:
        expected = value(tree, dims)
    except ZeroDivisionError:
        with pytest.raises(ExprError):
            parsed.evaluate(dims)
    else:
        assert parsed.evaluate(dims) == expected


@given(trees(), sizes())
def test_bounds_hold_every_value(tree: Tree, dims: dict[str, int]) -> None:
    parsed = parse(text(tree))
    try:
        low, high = parsed.bounds(RANGES)
    except ExprError:
        return  # a divisor that may be zero
    assert low <= parsed.evaluate(dims) <= high


@given(st.text(alphabet="0123456789batchn_ +-*/%(),.٣é\u2003", max_size=60))
@example("1" * 41)
@example("//")
@example("min()")
@example("(" * 5000)
@example("batch batch")
@example("0x10")
@example("1e3")
@example("9" * 40 + "*" + "9" * 40)
def test_any_text_is_an_expression_or_an_expression_error(source: str) -> None:
    try:
        parsed = parse(source)
    except ExprError:
        return
    assert parsed.text == source
    assert parsed.names <= {token for token in NAMES} | parsed.names
    for work in (
        lambda: parsed.evaluate(dict.fromkeys(parsed.names, 3)),
        lambda: parsed.bounds(dict.fromkeys(parsed.names, (1, 9))),
    ):
        try:
            work()
        except ExprError:
            continue


def test_a_sum_as_long_as_an_expression_may_be() -> None:
    terms = MAX_LENGTH // 2
    parsed = parse("+".join(["1"] * terms))
    assert parsed.evaluate({}) == terms
    assert parsed.bounds({}) == (terms, terms)
    assert parse("-".join(["n"] * terms)).evaluate({"n": 1}) == 2 - terms
    assert parsed == parse("+".join(["1"] * terms))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "ends too early"),
        ("1 +", "ends too early"),
        ("(1", r"expected '\)'"),
        ("1)", "after the end"),
        ("a b", "after the end"),
        ("2**3", r"unexpected '\*'"),
        ("a.b", "unexpected character '.'"),
        ("٣", "unexpected character"),
        ("min(,1)", "unexpected ','"),
        ("1" * (MAX_LENGTH + 1), "longer than"),
        ("(" * (MAX_DEPTH + 2) + "1" + ")" * (MAX_DEPTH + 2), "nested deeper"),
        ("-" * (MAX_DEPTH + 2) + "1", "nested deeper"),
    ],
)
def test_refused_texts(source: str, says: str) -> None:
    with pytest.raises(ExprError, match=says):
        parse(source)


def test_values_are_bounded() -> None:
    wide = "*".join(["9" * 30] * 2)
    with pytest.raises(ExprError, match=f"more than {MAX_BITS} bits"):
        parse(wide).evaluate({})
    with pytest.raises(ExprError, match="bits"):
        parse("n*n").bounds({"n": (0, 2**100)})
    with pytest.raises(ExprError, match="unknown dimension 'm'"):
        parse("m").evaluate({"n": 1})
    with pytest.raises(ExprError, match="unknown dimension 'm'"):
        parse("m").bounds({"n": (1, 2)})
    with pytest.raises(ExprError, match="holds zero"):
        parse("1//(n-1)").bounds({"n": (0, 2)})
