"""Strict JSON: one document has one meaning and one canonical form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie_schemas import canonical
from genie_schemas.canonical import MAX_DEPTH, MAX_SAFE_INT, StrictJsonError, loads

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-MAX_SAFE_INT, MAX_SAFE_INT),
        st.text(st.characters(codec="utf-8")),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_every_spelling_gives_one_canonical_form(value: Any, ascii_only: bool, pad: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return
    read = loads(json.dumps(value, ensure_ascii=ascii_only, indent=pad))
    assert read == value
    assert canonical.canonical_bytes(read) == canonical.canonical_bytes(value)
    assert loads(canonical.canonical_bytes(value).decode("utf-8")) == value
    assert loads(canonical.compact(value)) == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, 9), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical.digest(value) == canonical.digest(turned)


@given(st.text(alphabet='{}[]",:0123456789-.eE\\ud8DtrueNaN \ud800', max_size=40))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("1" * 5000)
@example('"\\ud800"')
def test_any_text_is_strict_or_a_strict_error(text: str) -> None:
    try:
        value = loads(text)
    except StrictJsonError:
        return
    assert loads(canonical.canonical_bytes(value).decode("utf-8")) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 1}', "duplicate key 'a'"),
        ('{"b": {"a": 1, "\\u0061": 2}}', "duplicate key 'a'"),
        ("1.0", "no integer"),
        ("1e3", "no integer"),
        ("[-0]", "-0"),
        ("[-0.0]", "no integer"),
        ("NaN", "no integer"),
        ("-Infinity", "no integer"),
        (str(2**53), r"beyond 2\^53"),
        (str(-(2**53)), r"beyond 2\^53"),
        ("9" * 5000, r"beyond 2\^53"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('["\ud83d"]', "surrogate"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("01", "Extra data"),
        ("", "Expecting value"),
        ('{"a": 1,}', "Illegal trailing comma|Expecting property name"),
        ("'a'", "Expecting value"),
        ('"\n"', "control character"),
        ("// c\n1", "Expecting value"),
        ("\ufeff1", "BOM"),
    ],
)
def test_refused_texts(text: str, says: str) -> None:
    with pytest.raises(StrictJsonError, match=says):
        loads(text)


def test_the_limits_themselves_are_allowed() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert canonical.compact(loads(deep)) == deep
    assert loads(f"[{MAX_SAFE_INT}, {-MAX_SAFE_INT}]") == [MAX_SAFE_INT, -MAX_SAFE_INT]
    assert loads('"\\ud83d\\ude00"') == "\U0001f600"
    assert loads('"\\\\ud800"') == "\\ud800"


def test_syntax_errors_have_a_place() -> None:
    with pytest.raises(StrictJsonError) as caught:
        loads('{\n  "a": ?\n}')
    assert (caught.value.line, caught.value.column) == (2, 8)
