"""What two sides say to each other when a port's path is lost: sans-I/O, and against liars."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_transport._control import MAX_ASKED, Control, Handover
from genie_transport._errors import ProtocolViolation
from genie_transport._handshake import TrafficKeys

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
NUMBERS = st.lists(st.integers(0, (1 << 64) - 1), unique=True, max_size=40)


def controls() -> tuple[Control, Control]:
    return Control(TrafficKeys(ONE, OTHER)), Control(TrafficKeys(OTHER, ONE))


def feed(control: Control, wire: bytearray, most: int) -> tuple[int, bytes] | None:
    """The next whole message from `wire`, received in pieces of at most `most` bytes."""
    while wire:
        count = min(control.wanted(), most, len(wire))
        piece = bytes(wire[:count])
        del wire[:count]
        if (message := control.add(piece)) is not None:
            return message
    return None


@settings(max_examples=200, deadline=None)
@given(NUMBERS, NUMBERS, st.integers(0, 1 << 32), st.integers(1, 200))
def test_both_sides_learn_what_arrived(
    mine: list[int], theirs: list[int], seed: int, most: int
) -> None:
    rng = random.Random(seed)
    arrived = {number for number in mine + theirs if rng.random() < 0.5}
    left, right = controls()
    a = Handover(left, "the port is down", mine, lambda n: n in arrived)
    b = Handover(right, "it left", theirs, lambda n: n in arrived)
    to_a, to_b = bytearray(b.start()), bytearray(a.start())
    while not (a.complete and b.complete):
        side = rng.random() < 0.5
        control, handover, wire, back = (left, a, to_a, to_b) if side else (right, b, to_b, to_a)
        if handover.complete:
            continue
        message = feed(control, wire, most)
        if message is not None:
            back += handover.received(*message)
    assert a.ended == frozenset(arrived) & frozenset(mine)
    assert b.ended == frozenset(arrived) & frozenset(theirs)
    assert a.peer_reason == "it left"
    assert b.peer_reason == "the port is down"
    assert not to_a, "whoever is done takes nothing of what follows"
    assert not to_b


def test_what_follows_the_last_message_is_left_alone() -> None:
    left, right = controls()
    a = Handover(left, "x", [7], lambda _: True)
    b = Handover(right, "y", [], lambda _: True)
    to_b = bytearray(a.start())
    to_a = bytearray(b.start())
    first = feed(right, to_b, 1 << 16)
    assert first is not None
    to_a += b.received(*first) + b"the next wire"
    while not a.complete:
        message = feed(left, to_a, 1 << 16)
        assert message is not None
        a.received(*message)
    assert a.ended == frozenset({7})
    assert to_a == b"the next wire"


def test_any_flipped_bit_is_noticed() -> None:
    whole = Handover(controls()[0], "why", [1, 2, 3], lambda _: True).start()
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            reader = controls()[1]
            try:
                assert feed(reader, damaged, 1 << 20) is None  # a longer size: it waits for more
            except ProtocolViolation:
                continue


def test_replayed_reflected_and_foreign_messages_are_refused() -> None:
    left, right = controls()
    message = left.seal(1, b"\0\0")
    assert feed(right, bytearray(message), 1 << 16) == (1, b"\0\0")
    with pytest.raises(ProtocolViolation):
        feed(right, bytearray(message), 1 << 16)
    with pytest.raises(ProtocolViolation):
        feed(left, bytearray(message), 1 << 16)
    with pytest.raises(ProtocolViolation):
        feed(controls()[1], bytearray(Control(TrafficKeys(OTHER, ONE)).seal(1, b"")), 1 << 16)


@pytest.mark.parametrize(
    "said",
    [
        [(1, b"")],
        [(1, b"\0")],
        [(1, b"\xff\xff")],
        [(1, b"\0\0" + bytes(7))],
        [(1, b"\x01\x01" + bytes(257))],
        [(1, b"\0\0"), (1, b"\0\0")],
        [(2, b"\x01\x01")],
        [(2, b"")],
        [(2, b"\x02")],
        [(2, b"\x01"), (2, b"\x01")],
        [(3, b"")],
        [(0, b"")],
    ],
)
def test_liars_are_refused(said: list[tuple[int, bytes]]) -> None:
    """A peer that holds the keys and says what no correct one does."""
    handover = Handover(controls()[0], "", [9], lambda _: True)
    handover.start()
    with pytest.raises(ProtocolViolation):
        for kind, body in said:
            handover.received(kind, body)


def test_sizes_are_checked_before_anything_is_kept() -> None:
    reader = controls()[0]
    with pytest.raises(ProtocolViolation):
        reader.add(b"GTC\x01\xff\xff\xff\xff")
    with pytest.raises(ProtocolViolation):
        controls()[0].add(b"HTTP/1.1")
    long = Handover(controls()[0], "é" * 400, range(MAX_ASKED + 10), lambda _: True)
    message = feed(controls()[1], bytearray(long.start()), 1 << 20)
    assert message is not None
    other = Handover(controls()[1], "", [], lambda _: True)
    other.start()
    other.received(*message)
    assert other.peer_reason.startswith("é" * 100)
