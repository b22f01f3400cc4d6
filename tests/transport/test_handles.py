"""DMAHandle as a value and as JSON from a hostile peer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from genie_transport import DMAHandle, TransferError

NUMBER = st.integers(0, (1 << 62) - 1) | st.sampled_from([0, (1 << 53) - 1, 1 << 53])
HANDLES = st.builds(
    DMAHandle,
    arena=NUMBER,
    offset=NUMBER,
    length=NUMBER,
    device=st.sampled_from(["cpu", "cuda:0", "d0"]),
    epoch=NUMBER,
    key=st.binary(min_size=16, max_size=16),
    transport_keys=st.dictionaries(
        st.sampled_from(["iova", "lkey", "rkey"]), st.integers(0, (1 << 64) - 1)
    ),
)
GOOD = DMAHandle(1, 0, 64, "cpu", 1, bytes(16), {"rkey": 5}).to_json()


@given(HANDLES)
def test_json_round_trip(handle: DMAHandle) -> None:
    text = json.dumps(handle.to_json())
    assert DMAHandle.from_json(json.loads(text)) == handle
    assert hash(DMAHandle.from_json(json.loads(text))) == hash(handle)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(JUNK)
def test_junk_is_refused(data: Any) -> None:
    with pytest.raises(TransferError, match="GEN0622"):
        DMAHandle.from_json(data)


@given(st.sampled_from(sorted(GOOD)), JUNK)
def test_one_bad_field_is_refused_or_means_the_same(field: str, junk: Any) -> None:
    try:
        handle = DMAHandle.from_json({**GOOD, field: junk})
    except TransferError as error:
        assert error.code == "GEN0622"
    else:
        shown = handle.to_json()[field]
        assert (shown, type(shown)) == (junk, type(junk))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("arena", -1),
        ("arena", True),
        ("arena", 1.0),
        ("length", 1 << 53),  # must be a string
        ("length", "5"),  # must be a number
        ("length", "9" * 5000),
        ("length", str(1 << 63)),
        ("offset", str((1 << 63) - 1)),  # with the length beyond 2^63
        ("epoch", "09007199254740992"),
        ("epoch", "٩٠٠٧١٩٩٢٥٤٧٤٠٩٩٣"),
        ("key", "0" * 31),
        ("key", "A" * 32),
        ("key", 5),
        ("device", "../x"),
        ("device", "d" * 65),
        ("device", None),
        ("transport_keys", {"okey": 1}),
        ("transport_keys", {"iova": -1}),
        ("transport_keys", {"iova": str(1 << 64)}),
        ("transport_keys", []),
    ],
)
def test_hostile_fields(snapshot: SnapshotAssertion, field: str, value: object) -> None:
    with pytest.raises(TransferError) as caught:
        DMAHandle.from_json({**GOOD, field: value})
    assert str(caught.value.to_genie_error()) == snapshot


def test_missing_and_unknown_fields() -> None:
    for field in GOOD:
        with pytest.raises(TransferError, match=f"{field}: missing"):
            DMAHandle.from_json({k: v for k, v in GOOD.items() if k != field})
    with pytest.raises(TransferError, match="unknown"):
        DMAHandle.from_json({**GOOD, "more": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"arena": -1},
        {"length": 1.5},
        {"key": b"short"},
        {"key": "0" * 16},
        {"device": 5},
        {"transport_keys": {"other": 1}},
        {"offset": (1 << 63) - 1, "length": 2},
    ],
)
def test_bad_values_make_no_handle(change: dict[str, Any]) -> None:
    fields = {"arena": 1, "offset": 0, "length": 4, "device": "cpu", "epoch": 1, "key": bytes(16)}
    with pytest.raises(TransferError, match="GEN0622"):
        DMAHandle(**{**fields, **change})


def test_it_cannot_change_and_does_not_show_its_key() -> None:
    keys = {"iova": 1}
    handle = DMAHandle(1, 0, 4, "cpu", 1, b"secret-of-16-byt", keys)
    keys["iova"] = 2
    assert handle.transport_keys["iova"] == 1
    with pytest.raises(TypeError):
        handle.transport_keys["iova"] = 3  # type: ignore[index]
    assert "secret" not in repr(handle)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 5), (5, 0), (3, 2)])
def test_parts_stay_within(offset: int, length: int) -> None:
    with pytest.raises(TransferError, match="GEN0625"):
        DMAHandle(1, 100, 4, "cpu", 1, bytes(16)).part(offset, length)
