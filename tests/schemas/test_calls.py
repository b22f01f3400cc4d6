"""Requests and replies of call channels, byte for byte: whatever comes in is read, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from genie_schemas.calls import RECORD_BYTES, Invocation, Reply, Status, layout
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages import RunReport

CHANNEL = bytes(range(16))
DEVICES = ("d0", "d1")
SIZES = st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), st.integers(0, 1 << 20))
RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}", fullmatch=True)
REPORT = RunReport(
    attempts=1,
    total_us=900,
    compute_us=500,
    wait_us=20,
    transfer_us=7,
    peak_bytes={"d0": 1 << 40},
    steps=12,
)


def request(sequence: int = 1, run_id: str = "run-1", timeout_us: int = 5) -> bytearray:
    head = bytearray(RECORD_BYTES)
    Invocation(CHANNEL, sequence, timeout_us, run_id).write(memoryview(head))
    return head


def reply(found: Reply, room: int = 4096) -> bytearray:
    head = bytearray(room)
    found.write(memoryview(head), DEVICES)
    return head


@given(SIZES, SIZES, st.integers(1, 64))
def test_no_value_lies_on_another(
    inputs: dict[str, int], outputs: dict[str, int], devices: int
) -> None:
    found = layout(inputs, outputs, devices)
    for sizes, inline, apart, end in (
        (inputs, found.inputs, found.inputs_apart, found.request_bytes),
        (outputs, found.outputs, found.outputs_apart, found.reply_bytes),
    ):
        assert sorted([*inline, *apart]) == sorted(sizes)
        spans = sorted((at, at + sizes[name]) for name, at in inline.items())
        assert all(at % 64 == 0 for at, _ in spans)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        assert not spans or (spans[0][0] >= RECORD_BYTES - 128 and spans[-1][1] <= end)
    assert found == layout(dict(reversed(inputs.items())), outputs, devices)


@given(st.integers(1, 2**64 - 1), RUN_IDS)
def test_requests_arrive_as_they_were(sequence: int, run_id: str) -> None:
    found = Invocation.read(request(sequence, run_id, 17), CHANNEL, sequence)
    assert found == Invocation(CHANNEL, sequence, 17, run_id)


def test_replies_arrive_as_they_were() -> None:
    good = Reply(Status.DONE, 9, REPORT, None, last=True)
    assert Reply.read(reply(good), DEVICES, 9) == good
    error = GenieError("GEN0413", "no room", cause="other runs", remedy="wait")
    found = Reply.read(reply(Reply(Status.UNADMITTED, 9, None, error)), DEVICES, 9)
    assert found.status is Status.UNADMITTED
    assert str(found.error) == str(error)


@given(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES))
def test_any_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(GenieError) as caught:
        Invocation.read(data, CHANNEL, 1)
    assert caught.value.code == "GEN0430"


@given(st.binary(max_size=300))
def test_any_bytes_are_no_reply(data: bytes) -> None:
    with pytest.raises(GenieError) as caught:
        Reply.read(data.ljust(4096, b"\0"), DEVICES, 1)
    assert caught.value.code == "GEN0432"


@given(st.integers(0, 8 * 400 - 1), st.sampled_from([Status.DONE, Status.FAILED]))
def test_one_flipped_bit_is_read_or_refused(bit: int, status: Status) -> None:
    error = None if status is Status.DONE else GenieError("GEN0414", "late")
    head = reply(Reply(status, 1, REPORT if error is None else None, error))
    head[bit // 8] ^= 1 << bit % 8
    try:
        Reply.read(head, DEVICES, 1)
    except GenieError as refused:
        assert refused.code == "GEN0432"


@pytest.mark.parametrize(
    "change",
    [
        lambda: request(2),
        lambda: bytearray(RECORD_BYTES),
        lambda: request()[:24] + bytes(16) + request()[40:],
        lambda: request(run_id="-x"),
        lambda: request(run_id="a\nb"),
    ],
    ids=["replay", "zeros", "other channel", "dash", "newline"],
)
def test_requests_that_do_not_fit(
    snapshot: SnapshotAssertion, change: Callable[[], bytearray]
) -> None:
    with pytest.raises(GenieError) as caught:
        Invocation.read(change(), CHANNEL, 1)
    assert str(caught.value) == snapshot


@pytest.mark.parametrize(
    "change",
    [
        lambda: reply(Reply(Status.DONE, 2, REPORT)),
        lambda: bytearray(4096),
        lambda: reply(Reply(Status.DONE, 1, REPORT))[:200],
    ],
    ids=["old", "zeros", "short"],
)
def test_replies_that_do_not_fit(
    snapshot: SnapshotAssertion, change: Callable[[], bytearray]
) -> None:
    head = change()
    if len(head) == 200:
        head[16:20] = (1 << 31).to_bytes(4, "little")  # an error longer than the head
    with pytest.raises(GenieError) as caught:
        Reply.read(head, DEVICES, 1)
    assert str(caught.value) == snapshot


@pytest.mark.parametrize("scale", [1, 1000, 100_000])
def test_errors_of_any_size_fit(scale: int) -> None:
    one = GenieError(
        "GEN0419", "ä\x01" * scale, cause="c" * scale, remedy="r", context={"k": scale}
    )
    many = GenieErrors([one, GenieError("GEN0401", "the second")])
    room = layout({}, {}, len(DEVICES)).reply_bytes
    found = Reply.read(reply(Reply(Status.FAILED, 1, None, many), room), DEVICES, 1).error
    assert found is not None
    assert found.code == "GEN0419"
    if scale == 1:
        assert isinstance(found, GenieErrors)
        assert [e.code for e in found.errors] == ["GEN0419", "GEN0401"]


def test_a_failure_that_cannot_be_read_is_one() -> None:
    head = reply(Reply(Status.FAILED, 1, None, GenieError("GEN0414", "late")))
    start = head.index(b'{"errors"')
    head[start : start + 4] = b"\xff\xfe{{"
    found = Reply.read(head, DEVICES, 1)
    assert found.error is not None
    assert found.error.code == "GEN0509"
