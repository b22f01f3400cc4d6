"""Frames of the stream transports: one codec, no I/O.

    header  48 bytes, big-endian:
        magic "GT" · version u8 · type u8 · payload bytes u32
        sequence u64 · message u64 · offset u64 · length u64 · credit u64
    tag     16 bytes: keyed BLAKE3 of the header
    payload, and its tag: keyed BLAKE3 of header + tag + payload (both only when not empty)

Each direction has its own key, and sequence numbers count every frame from 0, so a frame that is
replayed, reordered, reflected or taken from another connection does not verify. The header's tag
is checked before its sizes are believed; a damaged payload therefore fails one transfer and not
the connection. The two inputs of the tag differ in length (48, and more than 64): one can never
stand for the other.

`credit` is cumulative: how many payload bytes of DATA its receiver may have sent in total.
Meaning of the other fields by type:

    OPEN    message: next number · length: total bytes · payload: the destination
    DATA    message · offset: where in the message · payload: the bytes
    ACK     message · offset: bytes verified so far
    REFUSE  message · offset: the number of the error code · length: its detail
    CANCEL  message
    GRANT   nothing: carries credit, and shows that its sender lives
    BYE     nothing: the sender closes
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from typing import Protocol

from blake3 import blake3

from genie_transport._errors import ProtocolViolation
from genie_transport._regions import Destination
from genie_transport._types import MAX_CHUNK

__all__ = [
    "HEADER_BYTES",
    "TAG_BYTES",
    "VERSION",
    "FrameReader",
    "FrameSink",
    "FrameWriter",
    "Header",
    "Kind",
    "pack_destination",
    "unpack_destination",
]

VERSION = 1
TAG_BYTES = 16
HEADER_BYTES = 48
_SEALED = HEADER_BYTES + TAG_BYTES
_MAGIC = b"GT"
_HEADER = struct.Struct(">2sBBI5Q")
_DESTINATION = struct.Struct(">4Q16s")
_U63 = 1 << 63
_STAGE = 16 << 10  # what one receive call may take beyond a payload; small frames come in groups
_DISCARD = 64 << 10


class Kind(IntEnum):
    """Type of a frame."""

    OPEN = 1
    DATA = 2
    ACK = 3
    REFUSE = 4
    CANCEL = 5
    GRANT = 6
    BYE = 7


_PAYLOAD_BOUNDS = {Kind.OPEN: (_DESTINATION.size, _DESTINATION.size), Kind.DATA: (1, MAX_CHUNK)}
_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Header:
    """A verified header. Sizes and offsets in bytes, all below 2^63."""

    kind: Kind
    payload: int
    sequence: int
    message: int
    offset: int
    length: int
    credit: int


def pack_destination(dst: Destination) -> bytes:
    """The payload of OPEN."""
    return _DESTINATION.pack(dst.arena, dst.offset, dst.length, dst.epoch, dst.key)


def unpack_destination(payload: bytes) -> Destination:
    """Inverse of pack_destination. Raises ProtocolViolation for a range beyond 2^63."""
    destination = Destination(*_DESTINATION.unpack(payload))
    if max(destination.arena, destination.offset + destination.length, destination.epoch) >= _U63:
        raise ProtocolViolation("a destination beyond 2^63")
    return destination


class FrameWriter:
    """Seals outgoing frames with one direction's key and counts them."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def seal(
        self,
        kind: Kind,
        *,
        message: int = 0,
        offset: int = 0,
        length: int = 0,
        credit: int = 0,
        payload: bytes | memoryview = b"",
    ) -> tuple[bytes, bytes | memoryview, bytes]:
        """The frame's parts in order (sealed header, payload, tag); the payload is not copied."""
        size = len(payload)
        header = _HEADER.pack(
            _MAGIC, VERSION, kind, size, self._sequence, message, offset, length, credit
        )
        self._sequence += 1
        sealed = header + blake3(header, key=self._key).digest(length=TAG_BYTES)
        if not size:
            return sealed, b"", b""
        tag = blake3(sealed, key=self._key).update(payload).digest(length=TAG_BYTES)
        return sealed, payload, tag


class FrameSink(Protocol):
    """What a FrameReader hands its findings to."""

    def place(self, header: Header) -> memoryview | None:
        """Where the payload of a DATA frame goes (exactly header.payload bytes); None: nowhere."""
        ...

    def frame(self, header: Header, payload: bytes, intact: bool) -> None:
        """A whole frame. `payload` is that of OPEN; DATA is in its place already.

        `intact` is False when the payload's tag did not fit. It is not known, and True, for DATA
        that went nowhere.
        """
        ...


class FrameReader:
    """Takes a stream apart, in pieces of any size, without unbounded memory.

    `target()` says where the next bytes belong, so that a large payload is received straight
    into its destination; `received(n)` goes on. Raises ProtocolViolation for a frame that no
    correct peer sends; the reader must not be used afterwards.
    """

    def __init__(self, key: bytes, sink: FrameSink, max_payload: int = MAX_CHUNK) -> None:
        self._key = key
        self._sink = sink
        self._max_payload = max_payload
        self._sequence = 0
        self._stage = bytearray(_STAGE)
        self._stage_view = memoryview(self._stage)
        self._begin = 0
        self._end = 0
        self._header: Header | None = None
        self._body = memoryview(b"")  # the rest of the payload's place
        self._nowhere = False
        self._left = 0  # payload bytes still to come
        self._hash = blake3()
        self._scratch = bytearray()
        self._own = bytearray()
        self._direct = False

    @property
    def idle(self) -> bool:
        """True between frames: a stream that ends here was not cut."""
        return self._header is None and self._begin == self._end

    def target(self) -> memoryview:
        """Where to receive next; never empty."""
        self._direct = self._left > 0 and self._begin == self._end
        if self._direct:
            if self._nowhere:
                if not self._scratch:
                    self._scratch = bytearray(_DISCARD)
                return memoryview(self._scratch)[: self._left]
            return self._body
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin:
            rest = self._stage[self._begin : self._end]
            self._stage[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        return self._stage_view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written to what target() last returned."""
        if self._direct:
            self._take(count, None)
        else:
            self._end += count
        while self._step():
            pass

    def divert(self, test: Callable[[int], bool]) -> None:
        """Send the rest of the payload that is being received nowhere, if test(message) holds."""
        if self._header is not None and self._left and test(self._header.message):
            self._nowhere = True
            self._body = memoryview(b"")

    def _step(self) -> bool:
        """Do one thing with the staged bytes; False when more are needed."""
        staged = self._end - self._begin
        if self._header is None:
            if staged < _SEALED:
                return False
            self._start_frame(bytes(self._stage_view[self._begin : self._begin + _SEALED]))
            return True
        if self._left:
            count = min(staged, self._left)
            if not count:
                return False
            self._take(count, self._stage_view[self._begin : self._begin + count])
            self._begin += count
            return True
        if self._header.payload:
            if staged < TAG_BYTES:
                return False
            tag = bytes(self._stage_view[self._begin : self._begin + TAG_BYTES])
            self._begin += TAG_BYTES
            intact = self._nowhere or compare_digest(tag, self._hash.digest(length=TAG_BYTES))
        else:
            intact = True
        header, self._header = self._header, None
        self._body = memoryview(b"")
        payload = bytes(self._own) if header.kind is Kind.OPEN else b""
        self._sink.frame(header, payload, intact)
        return True

    def _start_frame(self, sealed: bytes) -> None:
        header = self._verify(sealed)
        self._begin += _SEALED
        self._sequence += 1
        self._left = header.payload
        self._nowhere = False
        if header.kind is Kind.DATA:
            place = self._sink.place(header)
            self._nowhere = place is None
            if place is not None:
                self._body = place
        elif header.payload:
            self._own = bytearray(header.payload)  # at most the size of a destination
            self._body = memoryview(self._own)
        if header.payload and not self._nowhere:
            self._hash = blake3(sealed, key=self._key)
        self._header = header

    def _verify(self, sealed: bytes) -> Header:
        plain, tag = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
        if not compare_digest(tag, blake3(plain, key=self._key).digest(length=TAG_BYTES)):
            raise ProtocolViolation("a frame header whose tag does not verify")
        magic, version, kind, size, sequence, message, offset, length, credit = _HEADER.unpack(
            plain
        )
        if magic != _MAGIC or version != VERSION:
            raise ProtocolViolation("a frame of another protocol version")
        if sequence != self._sequence:
            raise ProtocolViolation("a frame out of sequence")
        if kind not in _KINDS:
            raise ProtocolViolation("a frame of unknown type")
        low, high = _PAYLOAD_BOUNDS.get(_KINDS[kind], (0, 0))
        if not low <= size <= min(high, max(self._max_payload, _DESTINATION.size)):
            raise ProtocolViolation("a frame of impossible size")
        if max(message, offset, length, credit) >= _U63 or offset + size >= _U63:
            raise ProtocolViolation("a frame with a number beyond 2^63")
        return Header(_KINDS[kind], size, sequence, message, offset, length, credit)

    def _take(self, count: int, staged: memoryview | None) -> None:
        """Account for payload bytes: copied from the stage, or received in place (None)."""
        self._left -= count
        if self._nowhere:
            return
        piece = self._body[:count]
        if staged is not None:
            piece[:] = staged
        # Hashed while it is still in the cache.
        self._hash.update(piece)
        self._body = self._body[count:]
