"""Whatever a file holds, reading it ends in a spec or in a `GenieError`, and soon."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie.spec import load_spec
from genie.spec.document import MAX_BYTES
from genie_schemas.errors import GenieError

# Pieces that YAML and TOML give a meaning, so that random files get past the first character.
PIECES = st.sampled_from(
    [
        *"[]{}()<>,:-?!&*#|>%@`'\"=. \n\t\\~/é\u2028\x00\x85\ud800",
        "\n  ", "\n    ", "- ", ": ", "? ", "<<: ", "&a ", "*a ", "!!str ", "!x ", "---\n", "...\n",
        "%YAML 1.2\n", "%TAG ! x\n", "|\n", ">-\n", '"\\x', '"\\U0011', "'''", '"""', "[[a]]\n",
        "[a.b]\n", "a.b = ", "genie", "name", "inputs", "shape", "dims", "devices", "1", "0x", "1e",
        "1979-05-27", "null", "true", ".nan", "{#", "\r", "\ufeff",
    ]
)  # fmt: skip
TEXT = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=200)


def _load(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"spec{suffix}"
        path.write_bytes(content)
        try:
            load_spec(path, {})
        except GenieError as error:
            assert str(path) in str(error.place)
            assert error.exit_code in (4, 8)


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
@given(text=TEXT)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_random_text(suffix: str, text: str) -> None:
    _load(suffix, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
@given(content=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes(suffix: str, content: bytes) -> None:
    _load(suffix, content)


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_valid_spec_with_a_piece_replaced(suffix: str, data: st.DataObject) -> None:
    folder = Path(__file__).parent
    text = (folder / f"valid{suffix}").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    _load(suffix, (text[:start] + data.draw(TEXT) + text[end:]).encode("utf-8", "surrogatepass"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
@pytest.mark.parametrize(
    "unit",
    [
        "[", "{", "- ", "? ", "a: ", "a: 1\n", "&a ", "*a ", "'", '"', '"\\', "'''", '"""', "#",
        "|", "[[a]]\n", "a.", "a=[", "a={b=", "x={},\n", "-\n", "!a ", "a,", "{a: b, ", "\n", " ",
        "\t",
    ],
)  # fmt: skip
def test_as_large_a_file_as_allowed(suffix: str, unit: str) -> None:
    # The time limit is a watchdog: quadratic work on 256 KiB would take minutes.
    content = (unit * (MAX_BYTES // len(unit.encode())))[:MAX_BYTES].encode()
    _load(suffix, content)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_many_different_keys(suffix: str) -> None:
    sign = ": 1" if suffix == ".yaml" else " = 1"
    _load(suffix, "".join(f"k{i}{sign}\n" for i in range(18_000)).encode())
    _load(suffix, ("".join(f"k{i}{sign}\n" for i in range(9_000)) * 2).encode())
