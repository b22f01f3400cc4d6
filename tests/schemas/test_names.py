"""Names: any text becomes one, and no two things get the same."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from genie_schemas.names import IDENTIFIER, MAX_CLEAN, MAX_NAME, NAME, Namer, clean, identifier


@given(st.text())
@example("")
@example("...")
@example("0")
@example("a" * 1000)
@example("\ud800")
def test_any_text_becomes_a_name(text: str) -> None:
    name = clean(text)
    assert re.fullmatch(NAME, name)
    assert len(name) <= MAX_CLEAN
    assert clean(name) == name
    # The longest id that is made of one: a transfer between devices with names of 64.
    assert len(f"{name}.9999999/transfer@{'d' * 64}->{'d' * 64}.99") <= MAX_NAME


@given(st.text())
@example("3d-net")
@example("resnet.v2")
def test_any_text_becomes_an_identifier(text: str) -> None:
    name = identifier(text)
    assert re.fullmatch(IDENTIFIER, name)
    assert len(name) <= 64
    assert identifier(name) == name


def test_plain_names_stay() -> None:
    for name in ("blocks.0.attention.q_proj.weight", "0.conv", "_x"):
        assert clean(name) == name
    assert clean("my layer.weight") == "my_layer.weight"
    assert clean("a..b.") == "a.b"
    assert identifier("net-1_b") == "net-1_b"


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert clean("a" * 300 + "b") != clean("a" * 300 + "c")


@given(st.lists(st.sampled_from(["a", "a.2", "b", "a.2.2"]), max_size=12), st.sets(st.just("b")))
def test_namer_hands_out_each_name_once(bases: list[str], reserved: set[str]) -> None:
    namer = Namer()
    for name in reserved:
        namer.reserve(name)
    given_names = [namer(base) for base in bases]
    assert len(set(given_names)) == len(given_names)
    assert reserved.isdisjoint(given_names)
    assert all(name.startswith(base) for name, base in zip(given_names, bases, strict=True))
