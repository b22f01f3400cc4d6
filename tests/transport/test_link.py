"""The connection's protocol without I/O: two links, any schedule, any damage, any liar."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_transport import DMAHandle, Limits, Priority
from genie_transport._errors import ProtocolViolation
from genie_transport._frames import FrameWriter, Kind, pack_destination
from genie_transport._link import Link, PeerTerms
from genie_transport._regions import MAX_OPEN, Destination, Inbound
from genie_transport._types import Arrived, Completed, Counters, Event, Failed, Region, Transfer

LIMITS = Limits(chunk_bytes=4096, window_bytes=16384)
TERMS = PeerTerms(LIMITS.window_bytes, LIMITS.chunk_bytes, 30.0)
KEYS = bytes(32), bytes(range(32))


class End:
    """One side: a link, its regions, and the bytes it has sent and the other not yet taken."""

    def __init__(self, number: int) -> None:
        self.inbound = Inbound()
        self.counters = Counters()
        self.link = Link(self.inbound, self.counters, LIMITS, TERMS, KEYS[number], KEYS[1 - number])
        self.wire: deque[memoryview] = deque()
        self.events: list[Event] = []
        self.posted = 0

    def region(self, buffer: bytearray, number: int) -> Region:
        handle = DMAHandle(number, 0, len(buffer), "cpu", 1, number.to_bytes(16, "big"))
        region = Region(handle, memoryview(buffer), True, buffer)
        self.inbound.register(region)
        return region

    def post(self, data: bytes, dst: DMAHandle, priority: Priority = Priority.PREFILL) -> int:
        self.posted += 1
        self.link.post(
            Transfer(self.posted, Region(dst, memoryview(data), False, data), 0, dst, priority)
        )
        return self.posted

    def send(self, budget: int = 1 << 16) -> bool:
        return self.link.fill(self.wire, budget) > 0

    def take(self, source: End, count: int) -> bool:
        """Receive up to `count` bytes of what `source` has sent."""
        reader = self.link.reader
        moved = 0
        while source.wire and moved < count:
            view = reader.target()
            piece = source.wire.popleft()
            size = min(len(view), len(piece), count - moved)
            view[:size] = piece[:size]
            if size < len(piece):
                source.wire.appendleft(piece[size:])
            reader.received(size)
            moved += size
        self.events += self.link.take_events()
        return moved > 0


def settle(a: End, b: End) -> None:
    while any([a.send(), b.send(), b.take(a, 1 << 20), a.take(b, 1 << 20)]):
        pass


TRANSFERS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40_000), st.sampled_from(Priority)), max_size=12
)


@given(TRANSFERS, st.randoms(use_true_random=False), st.booleans())
def test_any_schedule_delivers_everything(
    transfers: list[tuple[bool, int, Priority]], rng: random.Random, cancels: bool
) -> None:
    a, b = End(0), End(1)
    moved: list[tuple[End, int, End, Region, bytes, bytearray]] = []
    for number, (forwards, size, priority) in enumerate(transfers, 1):
        sender, receiver = (a, b) if forwards else (b, a)
        data, buffer = rng.randbytes(size), bytearray(size)
        region = receiver.region(buffer, number)
        op = sender.post(data, region.handle, priority)
        moved.append((sender, op, receiver, region, data, buffer))
    cancelled: set[tuple[End, int]] = set()
    for _ in range(60):
        rng.choice([a, b]).send(rng.choice([1, 5000, 1 << 20]))
        near, far = rng.sample([a, b], 2)
        near.take(far, rng.choice([1, 63, 64, 4096, 1 << 20]))
        if cancels and moved and rng.random() < 0.2:
            sender, op, *_ = rng.choice(moved)
            if Completed(op) not in sender.events:
                sender.link.cancel(op)
                cancelled.add((sender, op))
    settle(a, b)
    for sender, op, receiver, region, data, buffer in moved:
        arrived = Arrived(region.handle.key) in receiver.events
        if (sender, op) in cancelled:
            assert Completed(op) not in sender.events
        else:
            assert sender.events.count(Completed(op)) == 1
            assert arrived
        if arrived:
            assert buffer == data
            assert receiver.events.count(Arrived(region.handle.key)) == 1
    for end in (a, b):
        assert end.counters.peak_in_flight <= LIMITS.window_bytes
        # Discarded tails give their credit back with the next frame.
        assert end.counters.in_flight < LIMITS.window_bytes // 4
        assert len(end.inbound) == 0
        assert not any(isinstance(event, Failed) for event in end.events)


def test_bulk_leaves_credit_for_decode() -> None:
    a, b = End(0), End(1)
    size = 10 * LIMITS.window_bytes
    bulk = a.post(bytes(size), b.region(bytearray(size), 1).handle, Priority.BULK)
    while a.send():
        pass
    assert 0 < a.counters.in_flight <= LIMITS.window_bytes * 3 // 4
    decode = a.post(bytes(4096), b.region(bytearray(4096), 2).handle, Priority.DECODE)
    assert a.send()  # although nothing has been acknowledged
    settle(a, b)
    done = [e.op_id for e in a.events if isinstance(e, Completed)]
    assert done == [decode, bulk]


def test_what_is_refused_gives_its_credit_back() -> None:
    a, b = End(0), End(1)
    size = 20 * LIMITS.window_bytes
    nowhere = DMAHandle(5, 0, size, "cpu", 1, b"f" * 16)
    refused = a.post(bytes(size), nowhere)
    buffer = bytearray(size)
    done = a.post(b"\1" * size, b.region(buffer, 1).handle)
    settle(a, b)
    assert [e for e in a.events if isinstance(e, Failed | Completed)] == [
        Failed(refused, "GEN0623", a_refusal("GEN0623")),
        Completed(done),
    ]
    assert buffer == b"\1" * size


def a_refusal(code: str) -> str:
    from genie_transport._errors import refused

    return refused(code, 0)[1]


def test_unanswered_transfers_are_bounded() -> None:
    a, b = End(0), End(1)
    region = b.region(bytearray(4 * MAX_OPEN), 1)
    for number in range(2 * MAX_OPEN):
        a.post(b"x", region.handle.part(number, 1), Priority.BULK)
    while a.send():
        pass
    assert a.link._next_message == MAX_OPEN * 3 // 4
    for number in range(2 * MAX_OPEN):
        a.post(b"x", region.handle.part(2 * MAX_OPEN + number, 1), Priority.DECODE)
    while a.send():
        pass
    assert a.link._next_message == MAX_OPEN
    settle(a, b)
    assert sum(isinstance(e, Completed) for e in a.events) == 4 * MAX_OPEN


def test_cancelled_transfers_do_not_pile_up() -> None:
    a, b = End(0), End(1)
    size = LIMITS.window_bytes
    region = b.region(bytearray(2 * size), 1)
    a.post(bytes(2 * size), region.handle)
    while a.send():
        pass  # the window is full, nobody answers
    for _ in range(5000):
        a.link.cancel(a.post(b"x", region.handle.part(0, 1)))
    queue = a.link._queue
    held = sum(len(q) for queues in (queue._active, queue._waiting) for q in queues.values())
    assert held < 300
    settle(a, b)
    assert Completed(1) in a.events


def test_keepalive_and_farewell() -> None:
    a, b = End(0), End(1)
    a.link.keepalive()
    a.link.keepalive()
    assert a.send()
    a.link.bye()
    settle(a, b)
    assert b.link.peer_closed
    assert not a.link.peer_closed


# -- liars with the right key ------------------------------------------------------------------

DST = Destination(1, 0, 8192, 1, (1).to_bytes(16, "big"))


def lie(*frames: tuple[Kind, dict[str, Any]], posts: int = 0) -> End:
    """The victim of a peer that sends these frames; it has sent `posts` one-byte transfers."""
    victim = End(0)
    victim.region(bytearray(8192), 1)
    for number in range(posts):
        victim.post(b"x", DMAHandle(9, number, 1, "cpu", 1, bytes(16)))
    victim.send()
    liar = End(1)
    writer = FrameWriter(KEYS[1])
    for kind, fields in frames:
        fields = {"credit": LIMITS.window_bytes, **fields}
        for part in writer.seal(kind, **fields):
            if len(part):
                liar.wire.append(memoryview(part))
    victim.take(liar, 1 << 30)
    return victim


OPEN = (Kind.OPEN, {"message": 0, "length": 8192, "payload": pack_destination(DST)})


def data(message: int, offset: int, size: int) -> tuple[Kind, dict[str, Any]]:
    return Kind.DATA, {"message": message, "offset": offset, "payload": b"\1" * size}


def opened(message: int, dst: Destination, length: int) -> tuple[Kind, dict[str, Any]]:
    payload = pack_destination(dst)
    return Kind.OPEN, {"message": message, "length": length, "payload": payload}


@pytest.mark.parametrize(
    ("frames", "posts"),
    [
        ([data(0, 0, 10)], 0),  # never opened
        ([OPEN, data(1, 0, 10)], 0),
        ([OPEN, data(0, 10, 10)], 0),  # a gap
        ([OPEN, data(0, 0, 10), data(0, 0, 10)], 0),  # again
        ([OPEN, data(0, 0, 4096), data(0, 4096, 4096), OPEN], 0),  # a number again
        ([opened(0, DST, 8192), opened(2, DST, 8192)], 0),  # a number left out
        ([opened(0, DST, 10)], 0),  # two lengths
        ([opened(0, Destination(1, 0, 3, 1, DST.key), 3), data(0, 0, 4)], 0),  # too long
        ([opened(0, Destination(1, 1 << 63, 8192, 1, DST.key), 8192)], 0),
        ([data(0, 0, 4097)], 0),  # beyond the agreed frame
        ([OPEN, *[data(0, 0, 4096)] * 9], 0),
        ([(Kind.GRANT, {"credit": LIMITS.window_bytes - 1})], 0),  # credit taken back
        ([(Kind.GRANT, {"credit": 1 << 40})], 0),  # more than was ever sent
        ([(Kind.ACK, {"message": 0, "offset": 1})], 0),
        ([(Kind.ACK, {"message": 0, "offset": 2})], 1),  # more than was sent
        ([(Kind.ACK, {"message": 1, "offset": 1})], 1),
        ([(Kind.REFUSE, {"message": 1, "offset": 623})], 1),
        ([(Kind.CANCEL, {"message": 0})], 0),
    ],
)
def test_liars_are_cut_off(frames: list[tuple[Kind, dict[str, Any]]], posts: int) -> None:
    with pytest.raises(ProtocolViolation):
        lie(*frames, posts=posts)


def test_a_liar_cannot_exceed_its_window() -> None:
    """Refused data counts as well: there is no way around the credit."""
    unknown = Destination(1, 0, 1 << 40, 1, b"?" * 16)
    frames = [opened(0, unknown, 1 << 40)] + [data(0, i * 4096, 4096) for i in range(5)]
    with pytest.raises(ProtocolViolation, match="granted"):
        lie(*frames)


def test_a_liar_cannot_fill_memory_with_questions() -> None:
    unknown = Destination(1, 0, 1, 1, b"?" * 16)
    with pytest.raises(ProtocolViolation, match="answers"):
        lie(*[opened(n, unknown, 1) for n in range(5 * MAX_OPEN)])


def test_a_liar_cannot_open_without_end() -> None:
    with pytest.raises(ProtocolViolation, match="too many"):
        lie(*[opened(n, Destination(1, n, 1, 1, DST.key), 1) for n in range(MAX_OPEN + 1)])


def test_late_answers_are_harmless() -> None:
    frames = [
        (Kind.ACK, {"message": 0, "offset": 1}),
        (Kind.ACK, {"message": 0, "offset": 1}),
        (Kind.REFUSE, {"message": 0, "offset": 623}),
        (Kind.REFUSE, {"message": 1, "offset": 123456}),
    ]
    victim = lie(*frames, posts=2)
    ended = [e for e in victim.events if isinstance(e, Completed | Failed)]
    assert ended[0] == Completed(1)
    assert isinstance(ended[1], Failed)
    assert ended[1].code == "GEN0600"
    assert len(ended) == 2


def test_damaged_payload_fails_one_transfer_only() -> None:
    a, b = End(0), End(1)
    buffer = bytearray(10_000)
    region = b.region(buffer, 1)
    op = a.post(b"\1" * 10_000, region.handle)
    a.send()
    # The payload of the second DATA frame: OPEN is one part, the first DATA three.
    broken = bytearray(a.wire[5])
    assert len(broken) == 4096
    broken[100] ^= 1
    a.wire[5] = memoryview(broken)
    settle(a, b)
    failed = [e for e in a.events if isinstance(e, Failed)]
    assert [(e.op_id, e.code) for e in failed] == [(op, "GEN0630")]
    assert "4096" in failed[0].message
    assert not any(isinstance(e, Arrived) for e in b.events)
    again = a.post(b"\2" * 10_000, region.handle)
    settle(a, b)
    assert Completed(again) in a.events
    assert buffer == b"\2" * 10_000


def test_damaged_destination_ends_the_connection() -> None:
    a, b = End(0), End(1)
    a.post(b"\1" * 10, b.region(bytearray(10), 1).handle)
    a.send()
    broken = bytearray(a.wire[0])
    broken[64 + 47] ^= 1  # the last byte of its payload
    a.wire[0] = memoryview(broken)
    with pytest.raises(ProtocolViolation, match="destination"):
        settle(a, b)
