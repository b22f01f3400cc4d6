"""Constants: digests chunk by chunk, and safetensors files that nobody has to trust."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from genie_schemas import constants
from genie_schemas.constants import CHUNK, ConstantFiles, TensorEntry, parse_header
from genie_schemas.errors import GenieError


def header(entries: Any) -> bytes:
    return json.dumps(entries).encode()


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refused(raw: bytes, data_bytes: int = 1024) -> str:
    with pytest.raises(GenieError) as caught:
        parse_header(Path("w.safetensors"), raw, data_bytes)
    assert caught.value.code == "GEN0316"
    assert caught.value.remedy
    return str(caught.value.cause)


# -- digests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5])
def test_digest_is_that_of_its_chunks(size: int, tmp_path: Path) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    pieces = [content[i : i + CHUNK] for i in range(0, max(size, 1), CHUNK)]
    chunks = [blake3.blake3(piece).digest() for piece in pieces]
    whole = blake3.blake3(size.to_bytes(8, "little") + b"".join(chunks))
    assert constants.chunk_digests(content) == chunks
    assert constants.digest(content) == f"blake3:{whole.hexdigest()}"
    assert constants.combine(chunks, size) == constants.digest(content)
    (tmp_path / "file").write_bytes(content)
    assert constants.file_digest(tmp_path / "file") == constants.digest(content)


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(1, 255))
def test_any_change_changes_the_digest(content: bytes, at: int, flip: int) -> None:
    changed = bytearray(content or b"\0")
    changed[at % len(changed)] ^= flip
    assert constants.digest(changed) != constants.digest(content)
    assert constants.digest(content + b"\0") != constants.digest(content)
    assert constants.digest(memoryview(content)) == constants.digest(bytearray(content))


def test_digest_of_any_buffer_is_over_its_bytes() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert constants.digest(array.data) == constants.digest(array.tobytes())


# -- headers -------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "U8", "BOOL", "I64", "F4"]), json_values),
        "shape": st.one_of(st.lists(st.integers(-1, 5), max_size=3), json_values),
        "data_offsets": st.one_of(
            st.lists(st.integers(-1, 70), min_size=2, max_size=2), json_values
        ),
    },
)
headers = st.one_of(
    st.binary(max_size=60),
    json_values.map(header),
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), fields, max_size=3).map(header),
)


@given(headers, st.integers(0, 64))
@settings(max_examples=300)
def test_any_header_is_refused_or_lies_inside_the_file(raw: bytes, data_bytes: int) -> None:
    try:
        entries = parse_header(Path("w.safetensors"), raw, data_bytes)
    except GenieError as error:
        assert error.code == "GEN0316"
        return
    start = 8 + len(raw)
    taken: set[int] = set()
    for found in entries.values():
        assert start <= found.start <= found.end <= start + data_bytes
        span = set(range(found.start, found.end))
        assert taken.isdisjoint(span)
        taken |= span
        size = int(np.prod(found.shape, dtype=np.int64))
        assert found.end - found.start == size * constants_itemsize(found)


def constants_itemsize(found: TensorEntry) -> int:
    from genie_schemas.types import DTYPES

    return DTYPES[found.dtype][1]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"{" * 5000, "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"[]", "no object"),
        (header({"a": entry()}).decode().encode("utf-16"), "no JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (header({"a": 3}), "malformed"),
        (header({"a": entry(dtype="F4")}), "malformed"),
        (header({"a": {**entry(), "dtype": ["F32"]}}), "malformed"),
        (header({"a": {**entry(), "shape": "2"}}), "malformed"),
        (header({"a": {**entry(), "shape": {"2": 1}}}), "malformed"),
        (header({"a": entry(shape=[1] * 65, offsets=(0, 4))}), "malformed"),
        (header({"a": entry(offsets=(0, 4, 8))}), "malformed"),
        (header({"a": entry(shape=[2.0])}), "no natural number"),
        (header({"a": entry(shape=[True, 2])}), "no natural number"),
        (header({"a": entry(shape=[-2], offsets=(8, 0))}), "no natural number"),
        (header({"a": entry(offsets=(8, 0))}), "does not fit"),
        (header({"a": entry(offsets=(1020, 1028))}), "does not fit"),
        (header({"a": entry(shape=[2**62, 2**62])}), "does not fit"),
        (header({"a": entry(), "b": entry(offsets=(4, 12))}), "overlap"),
        (header({"a": entry(), "b": entry()}), "overlap"),
    ],
)
def test_refused_headers(raw: bytes, says: str) -> None:
    assert says in refused(raw)


def test_a_shape_that_is_a_lie_costs_nothing() -> None:
    long = b'{"a":{"dtype":"F32","shape":[' + b"9," * 4_000_000 + b'9],"data_offsets":[0,4]}}'
    assert "malformed" in refused(long)
    assert "no JSON" in refused(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}")


# -- files ---------------------------------------------------------------------------------------


def write(folder: Path, name: str = "net.0123456789abcdef.safetensors") -> Path:
    tensors = {"a": np.arange(4, dtype=np.float32), "b": np.ones((0, 3), dtype=np.int64)}
    path = folder / name
    path.write_bytes(save(tensors))
    return path


def code_of(folder: Path, source: str) -> str:
    with ConstantFiles(folder) as files, pytest.raises(GenieError) as caught:
        files.view(source)
    assert caught.value.remedy
    return caught.value.code


def test_views_are_the_bytes_of_the_tensors(tmp_path: Path) -> None:
    path = write(tmp_path)
    with ConstantFiles(tmp_path) as files:
        view = files.view(f"{path.name}#a")
        assert bytes(view) == np.arange(4, dtype=np.float32).tobytes()
        assert files.entry(f"{path.name}#a").shape == (4,)
        assert files.view(f"{path.name}#b").nbytes == 0
    assert view.readonly
    assert bytes(view[:4]) == b"\0\0\0\0"  # a view outlives the folder's object


def test_unknown_tensor_and_missing_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert code_of(tmp_path, f"{path.name}#c") == "GEN0316"
    assert code_of(tmp_path, "other.safetensors#a") == "GEN0315"
    assert code_of(tmp_path, "x" * 300 + ".safetensors#a") == "GEN0315"
    assert constants.missing_sources(tmp_path, iter([f"{path.name}#a", "no.safetensors#b"])) == [
        "no.safetensors"
    ]


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "a\0b", "a\\b"]
)
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path, "out.safetensors")
    assert code_of(tmp_path / "in", f"{name}#a") == "GEN0317"


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "link.safetensors").symlink_to(path)
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    assert code_of(tmp_path, "link.safetensors#a") == "GEN0317"
    assert code_of(tmp_path, "dangling.safetensors#a") == "GEN0317"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "dir.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "short.safetensors").write_bytes(b"\1\0\0")
    for name in ("dir", "pipe", "empty", "short"):
        assert code_of(tmp_path, f"{name}.safetensors#a") == "GEN0316"
    assert code_of(tmp_path, "\ud800.safetensors#a") == "GEN0316"


@pytest.mark.parametrize("claimed", [2**64 - 1, 2**63, 2**40, 10_000, 17])
def test_a_header_longer_than_the_file(tmp_path: Path, claimed: int) -> None:
    raw = claimed.to_bytes(8, "little") + b'{"a": {}}       '
    (tmp_path / "lie.safetensors").write_bytes(raw)
    assert code_of(tmp_path, "lie.safetensors#a") == "GEN0316"


def test_a_cut_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert code_of(tmp_path, f"{path.name}#a") == "GEN0316"


@given(raw=st.binary(max_size=120))
@settings(max_examples=50)
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.safetensors").write_bytes(raw)
    assert code_of(folder, "any.safetensors#a") == "GEN0316"
