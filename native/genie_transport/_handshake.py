"""How two sides prove that they hold a session's key: sans-I/O, both roles.

    dialler → listener   HELLO      nonce, terms, wires it accepts, notes on them, session id
    listener → dialler   CHALLENGE  nonce
    dialler → listener   PROOF      MAC over both, for the dialler
    listener → dialler   WELCOME    terms, the wire, what to fall back to, a note on the wire,
                                    MAC over all, for the listener
                                    (or REFUSED: a reason)

A note is what a wire beside the connection needs to know of the other side: for DPDK its port.

The dialler proves first, and a session that nobody expects fails at the same point as a wrong
key: a stranger learns neither which sessions exist (the terms, which could tell, come last) nor a
MAC to search keys against. The MACs
name their role, so none can be reflected. Both nonces enter the traffic keys: nothing recorded on
another connection verifies on this one. A message is `"GTH" · version u8 · type u8 · size u16`
and its body, at most 4 KiB.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from typing import NamedTuple, Protocol

from blake3 import blake3

from genie_schemas.errors import GenieError
from genie_transport._errors import setup_error
from genie_transport._frames import VERSION
from genie_transport._link import PeerTerms
from genie_transport._types import MAX_CHUNK, MAX_WINDOW, MIN_CHUNK, Limits
from genie_transport._wires import BESIDE, NO_WIRE, Wire, best, fallback_of

__all__ = [
    "Accepted",
    "DialHandshake",
    "Expected",
    "HandshakeRefused",
    "ListenHandshake",
    "Notes",
    "TrafficKeys",
    "check_key",
    "check_session_id",
]

_MAGIC = b"GTH"
_HEAD = struct.Struct(">3sBBH")
_NONCE_BYTES = 32
_TERMS = struct.Struct(">QIQ")
_WIRES = struct.Struct(">B")
_NOTE = struct.Struct(">BH")  # wire, bytes
_SIZE = struct.Struct(">H")
_PROOF_BYTES = 32
_MAX_BODY = 4096
_MAX_NOTES = 3072
_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MICRO = 1_000_000


class _Step(IntEnum):
    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REFUSED = 5


class _Reason(IntEnum):
    SESSION = 1
    VERSION = 2
    BUSY = 3
    WIRE = 4


@dataclass(frozen=True, repr=False)
class TrafficKeys:
    """One key (32 bytes) for each direction of one connection."""

    send: bytes
    receive: bytes


@dataclass(frozen=True, repr=False)
class Accepted:
    """A handshake that succeeded. The listener still has to send `welcome`.

    `fallback` is the wire over the connection itself to which a session moves that loses `wire`,
    with keys of its own; NO_WIRE for none. `note` is the peer's, on the wire; `epoch` (32 bits)
    and `control` (a key for each direction, for what is said beside the wire) are the same on
    both sides and differ from connection to connection.
    """

    keys: TrafficKeys
    terms: PeerTerms
    wire: Wire
    welcome: bytes = b""
    fallback: Wire = NO_WIRE
    fallback_keys: TrafficKeys = TrafficKeys(b"", b"")
    control: TrafficKeys = TrafficKeys(b"", b"")
    note: bytes = b""
    epoch: int = 0


class Notes(Protocol):
    """The listener's part in wires beside the connection; one for each handshake."""

    def answer(self, wire: Wire, note: bytes) -> bytes | None:
        """What to say to the dialler's note on `wire`; None when the wire cannot be taken."""
        ...


class Expected(NamedTuple):
    """A session that a listener expects."""

    key: bytes
    limits: Limits
    wires: Wire
    notes: Notes | None = None


class HandshakeRefused(Exception):
    """The listener turns a dialler away; `reply` is to be sent first."""

    def __init__(self, why: str, reply: bytes) -> None:
        super().__init__(why)
        self.reply = reply


def check_session_id(session_id: object) -> None:
    """Raises GenieError GEN0602 unless it is 1 to 128 of the characters A-Z a-z 0-9 . _ : -."""
    if not isinstance(session_id, str) or not _SESSION_ID.fullmatch(session_id):
        raise setup_error(
            "GEN0602",
            "a session id has 1 to 128 characters of A-Z a-z 0-9 . _ : -",
            at="session_id",
        )


def check_key(key: object) -> None:
    """Raises GenieError GEN0602 for keys that are not 16 to 64 bytes; never shows the key."""
    if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
        raise setup_error("GEN0602", "a session key has 16 to 64 bytes", at="key")


def _message(step: _Step, body: bytes, version: int = VERSION) -> bytes:
    return _HEAD.pack(_MAGIC, version, step, len(body)) + body


def _pack_terms(limits: Limits) -> bytes:
    stall = int(limits.stall_timeout * _MICRO)
    return _TERMS.pack(limits.window_bytes, limits.chunk_bytes, stall)


def _unpack_terms(body: bytes) -> PeerTerms | None:
    """The peer's terms, or None when they are out of bounds (they set what we may allocate)."""
    window, chunk, stall = _TERMS.unpack(body)
    if not MIN_CHUNK <= chunk <= MAX_CHUNK or not 2 * chunk <= window <= MAX_WINDOW:
        return None
    if not 0.1 * _MICRO <= stall <= 3600 * _MICRO:
        return None
    return PeerTerms(window, chunk, stall / _MICRO)


def _pack_notes(notes: Mapping[Wire, bytes]) -> bytes:
    packed = b"".join(_NOTE.pack(wire, len(note)) + note for wire, note in notes.items())
    return _SIZE.pack(len(packed)) + packed


def _unpack_notes(body: bytes) -> tuple[dict[int, bytes], bytes] | None:
    """(wire → note, what follows); None when a size does not fit."""
    if len(body) < _SIZE.size:
        return None
    end = _SIZE.size + _SIZE.unpack_from(body)[0]
    if end > len(body) or end > _MAX_NOTES:
        return None
    notes, at = {}, _SIZE.size
    while at < end:
        if end - at < _NOTE.size:
            return None
        wire, size = _NOTE.unpack_from(body, at)
        at += _NOTE.size
        if size > end - at or wire in notes:
            return None
        notes[wire] = body[at : at + size]
        at += size
    return notes, body[end:]


class _Secrets:
    """Everything derived from the session key and the two opening messages."""

    def __init__(self, key: bytes, transcript: bytes) -> None:
        self._base = blake3(key, derive_key_context="genie transport v1 session").digest()
        self._transcript = transcript
        self._mac = blake3(b"mac" + transcript, key=self._base).digest()
        self.dialler_proof = blake3(b"dialler", key=self._mac).digest()

    def listener_proof(self, terms: bytes) -> bytes:
        return blake3(b"listener" + terms, key=self._mac).digest()

    def keys(self, purpose: bytes, *, dialler: bool) -> TrafficKeys:
        """A key for each direction and purpose: no two wires share one, so no nonce repeats."""
        sends = blake3(b"dialler sends" + purpose + self._transcript, key=self._base).digest()
        receives = blake3(b"listener sends" + purpose + self._transcript, key=self._base).digest()
        return TrafficKeys(sends, receives) if dialler else TrafficKeys(receives, sends)

    def epoch(self) -> int:
        """Of the connection: never 0."""
        return int.from_bytes(blake3(b"epoch", key=self._mac).digest(4), "big") or 1

    def accepted(
        self,
        terms: PeerTerms,
        wire: Wire,
        fallback: Wire,
        note: bytes,
        *,
        dialler: bool,
        welcome: bytes = b"",
    ) -> Accepted:
        return Accepted(
            keys=self.keys(b"", dialler=dialler),
            terms=terms,
            wire=wire,
            welcome=welcome,
            fallback=fallback,
            fallback_keys=self.keys(b" fallback", dialler=dialler),
            control=self.keys(b" control", dialler=dialler),
            note=note,
            epoch=self.epoch(),
        )


class _Incoming:
    """Collects one message at a time and never takes a byte of what follows it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = _HEAD.size
        self._step: int | None = None

    def wanted(self) -> int:
        """How many bytes to receive next, at most."""
        return self._size - len(self._data)

    def add(self, data: bytes) -> tuple[int, int, bytes] | None:
        """(version, step, whole message) once complete. Raises ValueError for junk."""
        self._data += data
        if self.wanted():
            return None
        magic, version, step, size = _HEAD.unpack_from(self._data)
        if magic != _MAGIC or size > _MAX_BODY:
            raise ValueError("not a Genie data connection")
        if len(self._data) < _HEAD.size + size:
            self._size = _HEAD.size + size
            return None
        whole = bytes(self._data)
        self._data.clear()
        self._size = _HEAD.size
        return version, step, whole


class ListenHandshake:
    """The listener's side. `find(session_id)` gives what is expected, an `Expected`.

    `accepted` is set once the dialler has proved itself.
    """

    def __init__(self, find: Callable[[str], tuple[bytes, Limits, Wire] | Expected | None]) -> None:
        self._find = find
        self._incoming = _Incoming()
        self._secrets: _Secrets | None = None
        self._terms: PeerTerms | None = None
        self._expected: Expected | None = None
        self._offered = NO_WIRE
        self._notes: dict[int, bytes] = {}
        self.session_id = ""
        self.accepted: Accepted | None = None

    def wanted(self) -> int:
        """How many bytes to receive next, at most."""
        return self._incoming.wanted()

    def received(self, data: bytes) -> bytes:
        """Take bytes; returns what to send (perhaps nothing). Raises HandshakeRefused."""
        try:
            message = self._incoming.add(data)
        except ValueError as error:
            raise HandshakeRefused(str(error), b"") from error
        if message is None:
            return b""
        version, step, whole = message
        if version != VERSION:
            raise HandshakeRefused(f"protocol version {version}", self.refusal(_Reason.VERSION))
        body = whole[_HEAD.size :]
        if step == _Step.HELLO and self._secrets is None:
            return self._on_hello(whole, body)
        if step == _Step.PROOF and self._secrets is not None and self._terms is not None:
            self._on_proof(body, self._secrets, self._terms)
            return b""
        raise HandshakeRefused("messages out of order", self.refusal(_Reason.SESSION))

    def _on_hello(self, whole: bytes, body: bytes) -> bytes:
        start = _NONCE_BYTES + _TERMS.size
        if len(body) <= start + _WIRES.size:
            raise HandshakeRefused("a short hello", self.refusal(_Reason.SESSION))
        self._terms = _unpack_terms(body[_NONCE_BYTES:start])
        self._offered = Wire(*_WIRES.unpack_from(body, start))
        unpacked = _unpack_notes(body[start + _WIRES.size :])
        if unpacked is None:
            raise HandshakeRefused("impossible notes", self.refusal(_Reason.SESSION))
        self._notes = unpacked[0]
        name = unpacked[1].decode("ascii", "replace")
        if self._terms is None or not _SESSION_ID.fullmatch(name):
            raise HandshakeRefused("impossible terms", self.refusal(_Reason.SESSION))
        self.session_id = name
        found = self._find(name)
        self._expected = Expected(*found) if found is not None else None
        # An unknown session goes on with a key that nobody has, and fails at the proof.
        key = self._expected.key if self._expected is not None else secrets.token_bytes(32)
        challenge = _message(_Step.CHALLENGE, secrets.token_bytes(_NONCE_BYTES))
        self._secrets = _Secrets(key, whole + challenge)
        return challenge

    def _on_proof(self, body: bytes, derived: _Secrets, terms: PeerTerms) -> None:
        fits = compare_digest(body, derived.dialler_proof)
        expected = self._expected
        if not fits or expected is None:
            raise HandshakeRefused("wrong key or session", self.refusal(_Reason.SESSION))
        wire, note = self._take(expected)
        fallback = fallback_of(wire, self._offered, expected.wires)
        notes = {wire: note} if note else {}
        own = _pack_terms(expected.limits) + bytes([wire, fallback]) + _pack_notes(notes)
        welcome = _message(_Step.WELCOME, own + derived.listener_proof(own))
        theirs = self._notes.get(wire, b"")
        self.accepted = derived.accepted(
            terms, wire, fallback, theirs, dialler=False, welcome=welcome
        )

    def _take(self, expected: Expected) -> tuple[Wire, bytes]:
        """The best wire of both sides that this one can take, and what to say about it."""
        left = expected.wires
        while (wire := best(self._offered, left)) is not None:
            if not wire & BESIDE:
                return wire, b""
            theirs = self._notes.get(wire)
            if theirs is not None and expected.notes is not None:
                answer = expected.notes.answer(wire, theirs)
                if answer is not None:
                    return wire, answer
            left &= ~wire
        raise HandshakeRefused("no path in common", self.refusal(_Reason.WIRE))

    def busy(self) -> bytes:
        """What to send when the session has a peer already."""
        return self.refusal(_Reason.BUSY)

    def unexpected(self) -> bytes:
        """What to send when the session is not expected any more."""
        return self.refusal(_Reason.SESSION)

    @staticmethod
    def refusal(reason: _Reason) -> bytes:
        """A REFUSED message."""
        return _message(_Step.REFUSED, bytes([reason]))


class DialHandshake:
    """The dialler's side."""

    def __init__(
        self,
        session_id: str,
        key: bytes,
        limits: Limits,
        wires: Wire = Wire.STREAM,
        notes: Mapping[Wire, bytes] | None = None,
    ) -> None:
        """`notes` has one for every wire beside the connection (at most 3 KiB together)."""
        self._key = key
        self._wires = wires
        self._incoming = _Incoming()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        opening = nonce + _pack_terms(limits) + _WIRES.pack(wires) + _pack_notes(notes or {})
        self._hello = _message(_Step.HELLO, opening + session_id.encode())
        self._secrets: _Secrets | None = None
        self.accepted: Accepted | None = None

    def start(self) -> bytes:
        """The first message to send."""
        return self._hello

    def wanted(self) -> int:
        """How many bytes to receive next, at most."""
        return self._incoming.wanted()

    def received(self, data: bytes) -> bytes:
        """Take bytes; returns what to send. `accepted` is set once the listener has proved itself.

        Raises GenieError GEN0606 (refused, or the listener's proof is wrong), GEN0607 (version),
        GEN0608 (busy) or GEN0609 (no path in common).
        """
        try:
            message = self._incoming.add(data)
        except ValueError as error:
            raise _refused_session("the answer is not Genie's data protocol") from error
        if message is None:
            return b""
        version, step, whole = message
        body = whole[_HEAD.size :]
        if step == _Step.REFUSED or version != VERSION:
            raise self._on_refused(version, body)
        if step == _Step.CHALLENGE and self._secrets is None and len(body) == _NONCE_BYTES:
            self._secrets = _Secrets(self._key, self._hello + whole)
            return _message(_Step.PROOF, self._secrets.dialler_proof)
        if step == _Step.WELCOME and self._secrets is not None:
            self._on_welcome(body, self._secrets)
            return b""
        raise _refused_session("the peer sent an unexpected message")

    def _on_welcome(self, body: bytes, derived: _Secrets) -> None:
        own, proof = body[:-_PROOF_BYTES], body[-_PROOF_BYTES:]
        if not compare_digest(proof, derived.listener_proof(own)):
            raise _refused_session("the peer does not hold the session's key")
        unpacked = _unpack_notes(own[_TERMS.size + 2 :])
        terms = _unpack_terms(own[: _TERMS.size]) if unpacked is not None else None
        if terms is None or unpacked is None or unpacked[1]:
            raise _refused_session("the peer offers impossible terms")
        wire, fallback = Wire(own[_TERMS.size]), Wire(own[_TERMS.size + 1])
        if best(self._wires, wire) is not wire:
            raise _refused_session("the peer chose a path that was not offered")
        if fallback and fallback_of(wire, self._wires, fallback) is not fallback:
            raise _refused_session("the peer falls back to a path that was not offered")
        note = unpacked[0].get(wire, b"")
        self.accepted = derived.accepted(terms, wire, fallback, note, dialler=True)

    @staticmethod
    def _on_refused(version: int, body: bytes) -> GenieError:
        if version != VERSION or body == bytes([_Reason.VERSION]):
            return setup_error(
                "GEN0607",
                f"the peer speaks transfer protocol {version}, this side speaks {VERSION}",
            )
        if body == bytes([_Reason.BUSY]):
            return setup_error("GEN0608", "the session already has a connected peer")
        if body == bytes([_Reason.WIRE]):
            return setup_error("GEN0609", "the peer accepts none of the paths that were offered")
        return _refused_session("it is not expected there, or the key is wrong")


def _refused_session(cause: str) -> GenieError:
    return setup_error("GEN0606", "the peer refused the session", cause=cause)
