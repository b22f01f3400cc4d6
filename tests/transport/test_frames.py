"""The frame codec: any split, any damage, any junk."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from genie_transport._errors import ProtocolViolation
from genie_transport._frames import FrameReader, FrameWriter, Header, Kind
from genie_transport._frames import pack_destination as pack
from genie_transport._regions import Destination

KEY = bytes(range(32))
DESTINATION = Destination(1, 2, 3, 4, bytes(16))


@dataclass
class Sink:
    """Keeps frames; DATA lands in fresh buffers, or nowhere."""

    nowhere: bool = False
    seen: list[tuple[Header, bytes, bool]] = field(default_factory=list)
    place_now: bytearray = field(default_factory=bytearray)

    def place(self, header: Header) -> memoryview | None:
        self.place_now = bytearray(header.payload)
        return None if self.nowhere else memoryview(self.place_now)

    def frame(self, header: Header, payload: bytes, intact: bool) -> None:
        body = bytes(self.place_now) if header.kind is Kind.DATA else payload
        self.seen.append((header, body, intact))


@dataclass(frozen=True)
class Sent:
    kind: Kind
    message: int
    offset: int
    length: int
    credit: int
    payload: bytes


U63 = st.integers(0, (1 << 63) - 1)
SMALL = st.integers(0, 1 << 40)
FRAMES = st.lists(
    st.one_of(
        st.builds(
            Sent,
            st.sampled_from([Kind.ACK, Kind.REFUSE, Kind.CANCEL, Kind.GRANT, Kind.BYE]),
            U63,
            U63,
            U63,
            U63,
            st.just(b""),
        ),
        st.builds(Sent, st.just(Kind.OPEN), U63, SMALL, U63, U63, st.just(pack(DESTINATION))),
        st.builds(
            Sent, st.just(Kind.DATA), U63, SMALL, U63, U63, st.binary(min_size=1, max_size=400)
        ),
    ),
    max_size=6,
)


def stream(frames: list[Sent], key: bytes = KEY) -> bytes:
    writer = FrameWriter(key)
    return b"".join(
        bytes(part)
        for f in frames
        for part in writer.seal(
            f.kind,
            message=f.message,
            offset=f.offset,
            length=f.length,
            credit=f.credit,
            payload=f.payload,
        )
    )


def feed(reader: FrameReader, data: bytes, sizes: list[int] | None = None) -> None:
    """Deliver `data` in pieces of these sizes, in turn."""
    turn = 0
    while data:
        view = reader.target()
        assert len(view)
        wanted = sizes[turn % len(sizes)] if sizes else len(data)
        turn += 1
        count = min(len(view), wanted, len(data))
        view[:count] = data[:count]
        data = data[count:]
        reader.received(count)


@given(FRAMES, st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_any_split_gives_the_same_frames(frames: list[Sent], sizes: list[int]) -> None:
    sink = Sink()
    reader = FrameReader(KEY, sink)
    feed(reader, stream(frames), sizes)
    assert reader.idle
    got = [Sent(h.kind, h.message, h.offset, h.length, h.credit, body) for h, body, _ in sink.seen]
    assert got == frames
    assert all(intact for _, _, intact in sink.seen)
    assert [h.sequence for h, _, _ in sink.seen] == list(range(len(frames)))


@given(FRAMES.filter(bool), st.data())
def test_any_flipped_bit_is_noticed(frames: list[Sent], data: st.DataObject) -> None:
    whole = bytearray(stream(frames))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    sink = Sink()
    try:
        feed(FrameReader(KEY, sink), bytes(whole))
    except ProtocolViolation:
        pass
    else:
        assert sum(not intact for _, _, intact in sink.seen) == 1
    for (header, body, intact), sent in zip(sink.seen, frames, strict=False):
        assert header.message == sent.message
        assert not intact or body == sent.payload


@given(st.binary(min_size=64, max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    sink = Sink()
    with pytest.raises(ProtocolViolation):
        feed(FrameReader(KEY, sink), junk)
    assert not sink.seen


@given(FRAMES.filter(lambda frames: len(frames) > 1), st.data())
def test_replay_reorder_and_loss_are_refused(frames: list[Sent], data: st.DataObject) -> None:
    ends = [len(stream(frames[: n + 1])) for n in range(len(frames))]
    whole = stream(frames)
    pieces = [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    first = data.draw(st.integers(0, len(pieces) - 1))
    second = data.draw(st.integers(0, len(pieces) - 1).filter(lambda n: n != first))
    pieces[second] = pieces[first]
    with pytest.raises(ProtocolViolation, match="sequence"):
        feed(FrameReader(KEY, Sink()), b"".join(pieces))


def test_other_keys_and_directions_do_not_verify() -> None:
    with pytest.raises(ProtocolViolation, match="tag"):
        feed(FrameReader(bytes(32), Sink()), stream([Sent(Kind.GRANT, 0, 0, 0, 0, b"")]))


def forged(**changes: int) -> bytes:
    """A header that says anything, with a tag that fits: what an authenticated liar can send."""
    fields = {"magic": 0x4754, "version": 1, "kind": 6, "payload": 0, "sequence": 0}
    fields |= {"message": 0, "offset": 0, "length": 0, "credit": 0} | changes
    header = struct.pack(">HBBI5Q", *fields.values())
    return header + blake3(header, key=KEY).digest(length=16)


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": 0x4755},
        {"version": 2},
        {"kind": 0},
        {"kind": 8},
        {"sequence": 1},
        {"kind": 2, "payload": 0},
        {"kind": 2, "payload": (4 << 20) + 1},
        {"kind": 2, "payload": (1 << 32) - 1},
        {"kind": 1, "payload": 47},
        {"kind": 1, "payload": 1 << 20},
        {"kind": 6, "payload": 1},
        {"message": 1 << 63},
        {"offset": (1 << 64) - 1},
        {"length": 1 << 63},
        {"credit": 1 << 63},
        {"kind": 2, "payload": 10, "offset": (1 << 63) - 5},
    ],
)
def test_lying_headers_are_refused_before_anything_is_allocated(changes: dict[str, int]) -> None:
    sink = Sink()
    with pytest.raises(ProtocolViolation):
        feed(FrameReader(KEY, sink), forged(**changes))
    assert not sink.place_now
    assert not sink.seen


def test_a_reader_keeps_to_its_own_frame_size() -> None:
    sink = Sink()
    with pytest.raises(ProtocolViolation, match="size"):
        feed(FrameReader(KEY, sink, max_payload=4096), forged(kind=2, payload=4097))


@given(st.integers(1, 200_000), st.integers(1, 70_000))
def test_data_that_goes_nowhere_takes_no_memory(size: int, piece: int) -> None:
    sink = Sink(nowhere=True)
    reader = FrameReader(KEY, sink)
    frames = [Sent(Kind.DATA, 0, 0, 0, 0, bytes(size)), Sent(Kind.BYE, 7, 0, 0, 0, b"")]
    data = stream(frames)
    while data:
        view = reader.target()
        assert len(view) <= 64 << 10
        count = min(len(view), piece, len(data))
        view[:count] = data[:count]
        data = data[count:]
        reader.received(count)
    assert [h.message for h, _, _ in sink.seen] == [0, 7]


def test_a_diverted_payload_leaves_the_buffer_alone() -> None:
    sink = Sink()
    reader = FrameReader(KEY, sink)
    data = stream([Sent(Kind.DATA, 9, 0, 0, 0, b"\1" * 1000)])
    feed(reader, data[:500])
    reader.divert(lambda message: message == 8)  # not this one
    feed(reader, data[500:600])
    reader.divert(lambda message: message == 9)
    feed(reader, data[600:])
    assert reader.idle
    assert bytes(sink.place_now) == b"\1" * (600 - 64) + bytes(1000 - 600 + 64)


def test_a_cut_frame_is_not_idle() -> None:
    data = stream([Sent(Kind.DATA, 0, 0, 0, 0, b"12345")])
    for cut in range(1, len(data)):
        reader = FrameReader(KEY, Sink())
        feed(reader, data[:cut])
        assert not reader.idle


@pytest.mark.sweep
def test_a_million_damaged_frames_are_all_noticed() -> None:
    """Row 8 of the fault matrix; a failure names its number, which is its seed."""
    frames = [Sent(Kind.DATA, 3, 0, 0, 9, bytes(range(48))), Sent(Kind.ACK, 3, 48, 0, 9, b"")]
    whole = stream(frames)
    for number in range(1_000_000):
        rng = random.Random(number)
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        cut = rng.choice((len(damaged), len(damaged), rng.randrange(len(damaged))))
        if damaged[:cut] == whole[:cut]:
            continue  # what was changed was cut off, or changed back
        sink = Sink()
        reader = FrameReader(KEY, sink)
        try:
            feed(reader, bytes(damaged[:cut]))
        except ProtocolViolation:
            pass
        else:
            spoiled = [intact for _, _, intact in sink.seen].count(False)
            assert spoiled == 1 or not reader.idle, number
        assert all(
            body == sent.payload
            for (_, body, intact), sent in zip(sink.seen, frames, strict=False)
            if intact
        ), number
