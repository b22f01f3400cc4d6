"""Messages of the handshake: their layout, and collecting them from a stream. See _handshake."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

from genie_transport._frames import VERSION
from genie_transport._link import PeerTerms
from genie_transport._types import MAX_CHUNK, MAX_WINDOW, MIN_CHUNK, Limits
from genie_transport._wires import Wire

__all__ = [
    "HEAD",
    "NONCE_BYTES",
    "PROOF_BYTES",
    "TERMS",
    "WIRES",
    "Incoming",
    "Reason",
    "Step",
    "build",
    "pack_notes",
    "pack_terms",
    "unpack_notes",
    "unpack_terms",
]

MAGIC = b"GTH"
HEAD = struct.Struct(">3sBBH")
NONCE_BYTES = 32
TERMS = struct.Struct(">QIQ")
WIRES = struct.Struct(">B")
NOTE = struct.Struct(">BH")  # wire, bytes
SIZE = struct.Struct(">H")
PROOF_BYTES = 32
MAX_BODY = 4096
MAX_NOTES = 3072
MICRO = 1_000_000


class Step(IntEnum):
    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REFUSED = 5


class Reason(IntEnum):
    SESSION = 1
    VERSION = 2
    BUSY = 3
    WIRE = 4


def build(step: Step, body: bytes, version: int = VERSION) -> bytes:
    return HEAD.pack(MAGIC, version, step, len(body)) + body


def pack_terms(limits: Limits) -> bytes:
    stall = int(limits.stall_timeout * MICRO)
    return TERMS.pack(limits.window_bytes, limits.chunk_bytes, stall)


def unpack_terms(body: bytes) -> PeerTerms | None:
    """The peer's terms, or None when they are out of bounds (they set what we may allocate)."""
    window, chunk, stall = TERMS.unpack(body)
    if not MIN_CHUNK <= chunk <= MAX_CHUNK or not 2 * chunk <= window <= MAX_WINDOW:
        return None
    if not 0.1 * MICRO <= stall <= 3600 * MICRO:
        return None
    return PeerTerms(window, chunk, stall / MICRO)


def pack_notes(notes: Mapping[Wire, bytes]) -> bytes:
    packed = b"".join(NOTE.pack(wire, len(note)) + note for wire, note in notes.items())
    return SIZE.pack(len(packed)) + packed


def unpack_notes(body: bytes) -> tuple[dict[int, bytes], bytes] | None:
    """(wire → note, what follows); None when a size does not fit."""
    if len(body) < SIZE.size:
        return None
    end = SIZE.size + SIZE.unpack_from(body)[0]
    if end > len(body) or end > MAX_NOTES:
        return None
    notes, at = {}, SIZE.size
    while at < end:
        if end - at < NOTE.size:
            return None
        wire, size = NOTE.unpack_from(body, at)
        at += NOTE.size
        if size > end - at or wire in notes:
            return None
        notes[wire] = body[at : at + size]
        at += size
    return notes, body[end:]


class Incoming:
    """Collects one message at a time and never takes a byte of what follows it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = HEAD.size
        self._step: int | None = None

    def wanted(self) -> int:
        """How many bytes to receive next, at most."""
        return self._size - len(self._data)

    def add(self, data: bytes) -> tuple[int, int, bytes] | None:
        """(version, step, whole message) once complete. Raises ValueError for junk."""
        self._data += data
        if self.wanted():
            return None
        magic, version, step, size = HEAD.unpack_from(self._data)
        if magic != MAGIC or size > MAX_BODY:
            raise ValueError("not a Genie data connection")
        if len(self._data) < HEAD.size + size:
            self._size = HEAD.size + size
            return None
        whole = bytes(self._data)
        self._data.clear()
        self._size = HEAD.size
        return version, step, whole
