"""How two sides prove that they hold a session's key: sans-I/O, both roles.

    dialler → listener   HELLO      nonce, terms, wires it accepts, session id
    listener → dialler   CHALLENGE  nonce
    dialler → listener   PROOF      MAC over both, for the dialler
    listener → dialler   WELCOME    terms, the wire, MAC over all, for the listener
                                    (or REFUSED: a reason)

The dialler proves first, and a session that nobody expects fails at the same point as a wrong
key: a stranger learns neither which sessions exist (the terms, which could tell, come last) nor a
MAC to search keys against. The MACs
name their role, so none can be reflected. Both nonces enter the traffic keys: nothing recorded on
another connection verifies on this one. A message is `"GTH" · version u8 · type u8 · size u16`
and its body, at most 512 bytes.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest

from blake3 import blake3

from genie_schemas.errors import GenieError
from genie_transport._errors import setup_error
from genie_transport._frames import VERSION
from genie_transport._link import PeerTerms
from genie_transport._types import MAX_CHUNK, MAX_WINDOW, MIN_CHUNK, Limits
from genie_transport._wires import Wire, best

__all__ = [
    "Accepted",
    "DialHandshake",
    "HandshakeRefused",
    "ListenHandshake",
    "TrafficKeys",
    "check_key",
    "check_session_id",
]

_MAGIC = b"GTH"
_HEAD = struct.Struct(">3sBBH")
_NONCE_BYTES = 32
_TERMS = struct.Struct(">QIQ")
_WIRES = struct.Struct(">B")
_MAX_BODY = 512
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
    """A handshake that succeeded. The listener still has to send `welcome`."""

    keys: TrafficKeys
    terms: PeerTerms
    wire: Wire
    welcome: bytes = b""


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


class _Secrets:
    """Everything derived from the session key and the two opening messages."""

    def __init__(self, key: bytes, transcript: bytes) -> None:
        base = blake3(key, derive_key_context="genie transport v1 session").digest()
        self._mac = blake3(b"mac" + transcript, key=base).digest()
        self.dialler_proof = blake3(b"dialler", key=self._mac).digest()
        self.dialler_sends = blake3(b"dialler sends" + transcript, key=base).digest()
        self.listener_sends = blake3(b"listener sends" + transcript, key=base).digest()

    def listener_proof(self, terms: bytes) -> bytes:
        return blake3(b"listener" + terms, key=self._mac).digest()


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
    """The listener's side. `find(session_id)` gives key, limits and wires of an expected session.

    `accepted` is set once the dialler has proved itself.
    """

    def __init__(self, find: Callable[[str], tuple[bytes, Limits, Wire] | None]) -> None:
        self._find = find
        self._incoming = _Incoming()
        self._secrets: _Secrets | None = None
        self._terms: PeerTerms | None = None
        self._limits: Limits | None = None
        self._offered = self._accepted = Wire(0)
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
        name = body[start + _WIRES.size :].decode("ascii", "replace")
        if self._terms is None or not _SESSION_ID.fullmatch(name):
            raise HandshakeRefused("impossible terms", self.refusal(_Reason.SESSION))
        self.session_id = name
        found = self._find(name)
        # An unknown session goes on with a key that nobody has, and fails at the proof.
        key, self._limits, self._accepted = found or (secrets.token_bytes(32), None, Wire(0))
        challenge = _message(_Step.CHALLENGE, secrets.token_bytes(_NONCE_BYTES))
        self._secrets = _Secrets(key, whole + challenge)
        return challenge

    def _on_proof(self, body: bytes, derived: _Secrets, terms: PeerTerms) -> None:
        fits = compare_digest(body, derived.dialler_proof)
        if not fits or self._limits is None:
            raise HandshakeRefused("wrong key or session", self.refusal(_Reason.SESSION))
        keys = TrafficKeys(send=derived.listener_sends, receive=derived.dialler_sends)
        wire = best(self._offered, self._accepted)
        if wire is None:
            raise HandshakeRefused("no path in common", self.refusal(_Reason.WIRE))
        own = _pack_terms(self._limits) + _WIRES.pack(wire)
        welcome = _message(_Step.WELCOME, own + derived.listener_proof(own))
        self.accepted = Accepted(keys, terms, wire, welcome)

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
        self, session_id: str, key: bytes, limits: Limits, wires: Wire = Wire.STREAM
    ) -> None:
        self._key = key
        self._wires = wires
        self._incoming = _Incoming()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        opening = nonce + _pack_terms(limits) + _WIRES.pack(wires)
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
        size = _TERMS.size + _WIRES.size
        own, proof = body[:size], body[size:]
        if not compare_digest(proof, derived.listener_proof(own)):
            raise _refused_session("the peer does not hold the session's key")
        terms = _unpack_terms(own[: _TERMS.size])
        if terms is None:
            raise _refused_session("the peer offers impossible terms")
        wire = Wire(*_WIRES.unpack_from(own, _TERMS.size))
        if best(self._wires, wire) is not wire:
            raise _refused_session("the peer chose a path that was not offered")
        keys = TrafficKeys(send=derived.dialler_sends, receive=derived.listener_sends)
        self.accepted = Accepted(keys, terms, wire)

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
