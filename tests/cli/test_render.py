"""Errors as text: carets under the right characters, and nothing that drives a terminal."""

from __future__ import annotations

import io
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cli.render import printable, render_error, use_colour
from genie_schemas.errors import GenieError, Place


def _excerpt(text: str, column: int, length: int = 1) -> tuple[str, str]:
    place = Place(file="f.yaml", line=1, column=column, text=text, length=length)
    lines = render_error(GenieError("GEN0102", "m", place), colour=False).splitlines()
    return lines[3].removeprefix(" 1 | "), lines[4].removeprefix("   | ")


@pytest.mark.parametrize(
    ("text", "column", "length", "caret"),
    [
        ("abc: def", 6, 3, "     ^^^"),
        ("\tabc", 2, 3, "    ^^^"),
        ("日本: x", 5, 1, "      ^"),
        ("e\u0301: x", 5, 1, "   ^"),
        ("abc", 4, 1, "   ^"),
        ("abc", 2, 99, " ^^"),
        ("", 1, 1, "^"),
        ("a\x1b[31mb", 2, 1, " ^^^^"),
    ],
)
def test_caret(text: str, column: int, length: int, caret: str) -> None:
    assert _excerpt(text, column, length)[1] == caret


@pytest.mark.parametrize("column", [1, 50, 90, 150, 290, 300])
def test_long_lines_are_cut_around_the_caret(column: int) -> None:
    text = "".join(chr(0x61 + i % 26) for i in range(300))
    shown, caret = _excerpt(text, column)
    assert len(shown) <= 98
    assert shown[len(caret) - 1] == text[column - 1]


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    # Cc: control, Cf: direction marks and the like, Zl and Zp: line ends that terminals know.
    assert not [c for c in shown if c != "\n" and category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@given(st.text(max_size=150), st.integers(1, 200), st.integers(1, 50))
def test_any_place_can_be_rendered(text: str, column: int, length: int) -> None:
    line = text.replace("\n", "")
    place = Place(file=text, line=7, column=column, text=line, length=length)
    rendered = render_error(GenieError("GEN0102", text, place, text, text), colour=False)
    assert "\x1b" not in rendered
    assert "^" in rendered


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert use_colour(Terminal())
    assert not use_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not use_colour(Terminal())


def test_colour_adds_only_escape_sequences() -> None:
    place = Place(file="f.yaml", line=3, column=2, text="abc")
    error = GenieError("GEN0102", "m", place, "c", "r")
    import re

    coloured = render_error(error, colour=True)
    assert coloured.startswith("\x1b[1;31merror GEN0102\x1b[0m")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_error(error, colour=False)
