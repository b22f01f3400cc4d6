"""Tagged arguments: what is encoded comes back, and nothing else is accepted."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie_schemas import args, canonical
from genie_schemas.args import ArgError, Named, ProgramRef, Ref, decode, encode, walk
from genie_schemas.expr import parse
from genie_schemas.types import DTYPES

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.builds(Ref, st.from_regex(r"[a-z][a-z0-9.]{0,8}", fullmatch=True)),
    st.sampled_from(["batch", "batch*2+1", "n//2"]).map(parse),
    st.sampled_from(sorted(DTYPES)).map(lambda n: Named("dtype", n)),
    st.sampled_from(args.MEMORY_FORMATS).map(lambda n: Named("memory_format", n)),
    st.just(Named("device", "here")),
    st.just(Named("layout", "strided")),
    st.builds(ProgramRef, st.from_regex(r"[0-9a-f]{16}", fullmatch=True)),
)
arguments = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def same(a: Any, b: Any) -> bool:
    """Equal with the same types, NaN included, 0.0 and -0.0 told apart."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return args.float_text(a) == args.float_text(b)
    if isinstance(a, complex) and isinstance(b, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    return type(a) is type(b) and bool(a == b)


@given(arguments)
def test_round_trip(value: args.Arg) -> None:
    data = encode(value)
    assert same(decode(data), value)
    # Through the strict JSON of a plan, and with one canonical form.
    again = canonical.loads(json.dumps(data))
    assert canonical.canonical_bytes(again) == canonical.canonical_bytes(data)
    assert same(decode(again), value)


@given(arguments)
def test_walk_visits_every_leaf(value: args.Arg) -> None:
    def count(item: args.Arg) -> int:
        return sum(map(count, item)) if isinstance(item, tuple) else 1

    found = list(walk(value))
    assert len(found) == count(value)
    assert not any(isinstance(leaf, tuple) for leaf in found)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["i", "f", "c", "s", "v", "e", "dtype", "device", "layout", "x"]),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=8,
)


@given(json_values)
@example({"f": "0x1.8p+99999"})
@example({"f": "0x1.8000000000000p+1024"})
@example({"f": "0x1.8p+\u0663"})
@example({"e": "+".join(["1"] * 2000)})
@example({"i": "9" * 5000})
def test_any_json_is_an_argument_or_an_argument_error(data: Any) -> None:
    try:
        value = decode(data)
    except ArgError:
        return
    # An integer beyond 2^53 cannot come out of strict JSON as a bare number.
    if not any(type(leaf) is int and abs(leaf) >= 2**53 for leaf in walk(value)):
        assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        1.5,
        {},
        {"v": "a", "s": "b"},
        {"v": 3},
        {"q": "a"},
        {"i": "7"},
        {"i": "+9223372036854775807"},
        {"i": "09223372036854775807"},
        {"i": "9007199254740991"},
        {"i": "123456789012345678901"},
        {"f": "1.5"},
        {"f": "0x1.8p+1"},
        {"f": "0X1.8000000000000P+1"},
        {"f": "infinity"},
        {"f": "-nan"},
        {"f": "0x1.0000000000000p+1024"},
        {"f": 1},
        {"c": ["0x0.0p+0"]},
        {"c": "0x0.0p+0"},
        {"c": ["nan", 1]},
        {"e": "batch +"},
        {"dtype": "float32"},
        {"device": "cuda"},
        {"device": "cpu:0"},
        {"layout": "sparse_coo"},
        {"memory_format": "torch.channels_last"},
        [{"v": None}],
    ],
)
def test_refused_arguments(data: Any) -> None:
    with pytest.raises(ArgError):
        decode(data)


def test_floats_are_written_in_hexadecimal() -> None:
    assert encode(0.1) == {"f": "0x1.999999999999ap-4"}
    assert encode(-0.0) == {"f": "-0x0.0p+0"}
    assert encode(math.inf) == {"f": "inf"}
    assert encode(2**53) == {"i": "9007199254740992"}
    assert encode(2**53 - 1) == 2**53 - 1
