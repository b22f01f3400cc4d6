"""What two sides say over the connection beside a port: how a session moves off a lost path.

    LEAVE  why, and the numbers of this side's messages of which it does not know the end
    DONE   for each number that the peer asked about, whether this side received it whole

Each side closes its port's session before it says anything, so an answer cannot be overtaken. Both
say LEAVE once and answer the peer's with DONE; whoever has said and heard both goes on over the
connection itself, whose next byte is the new wire's. Sans-I/O. A message is
`"GTC" · type u8 · size u32`, its body, and 16 bytes of keyed BLAKE3 over all of that and the
message's place in its direction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from hmac import compare_digest

from blake3 import blake3

from genie_transport._errors import ProtocolViolation
from genie_transport._handshake import TrafficKeys

__all__ = ["MAX_ASKED", "Control", "Handover"]

_MAGIC = b"GTC"
_HEAD = struct.Struct(">3sBI")
_TAG_BYTES = 16
_REASON_BYTES = 256
_NUMBER = struct.Struct(">Q")
MAX_ASKED = 65536
"""Messages that one side may ask about: more than any port has under way."""
_MAX_BODY = 2 + _REASON_BYTES + MAX_ASKED * _NUMBER.size


class _Type(IntEnum):
    LEAVE = 1
    DONE = 2


class Control:
    """Seals and opens messages; takes no byte of what follows the message that it waits for."""

    def __init__(self, keys: TrafficKeys) -> None:
        self._keys = keys
        self._sent = self._taken = 0
        self._data = bytearray()
        self._size = _HEAD.size

    def seal(self, kind: int, body: bytes) -> bytes:
        """The next message to send."""
        whole = _HEAD.pack(_MAGIC, kind, len(body)) + body
        tag = _tag(self._keys.send, self._sent, whole)
        self._sent += 1
        return whole + tag

    def wanted(self) -> int:
        """How many bytes to receive next, at most."""
        return self._size - len(self._data)

    def add(self, data: bytes) -> tuple[int, bytes] | None:
        """(type, body) once a message is whole. Raises ProtocolViolation."""
        self._data += data
        if self.wanted():
            return None
        magic, kind, size = _HEAD.unpack_from(self._data)
        if magic != _MAGIC or size > _MAX_BODY:
            raise ProtocolViolation("a control message with an impossible header")
        end = _HEAD.size + size
        if len(self._data) < end + _TAG_BYTES:
            self._size = end + _TAG_BYTES
            return None
        whole, tag = bytes(self._data[:end]), bytes(self._data[end:])
        if not compare_digest(tag, _tag(self._keys.receive, self._taken, whole)):
            raise ProtocolViolation("a control message that is not authentic")
        self._taken += 1
        self._data.clear()
        self._size = _HEAD.size
        return kind, whole[_HEAD.size :]


def _tag(key: bytes, place: int, whole: bytes) -> bytes:
    return blake3(_NUMBER.pack(place) + whole, key=key).digest(_TAG_BYTES)


class Handover:
    """One side of the move. Make it when the port's session is closed on this side.

    `finished(number)` says whether this side has received the peer's message whole.
    """

    def __init__(
        self, control: Control, reason: str, asked: Sequence[int], finished: Callable[[int], bool]
    ) -> None:
        self._control = control
        self._reason = reason
        self._asked = list(asked[:MAX_ASKED])
        self._finished = finished
        self._answered = False
        self.ended: frozenset[int] | None = None
        """Of the numbers asked about those that the peer has received, once it has answered."""
        self.peer_reason = ""

    def start(self) -> bytes:
        """The first message to send."""
        text = self._reason.encode()[:_REASON_BYTES]
        # A cut may leave part of a character: the reader replaces it.
        head = struct.pack(">H", len(text)) + text
        numbers = b"".join(_NUMBER.pack(number) for number in self._asked)
        return self._control.seal(_Type.LEAVE, head + numbers)

    @property
    def complete(self) -> bool:
        """Both sides have said and heard everything."""
        return self._answered and self.ended is not None

    def received(self, kind: int, body: bytes) -> bytes:
        """Take a message; returns what to send. Raises ProtocolViolation."""
        if kind == _Type.LEAVE and not self._answered:
            self._answered = True
            return self._control.seal(_Type.DONE, self._answer(body))
        if kind == _Type.DONE and self.ended is None:
            if len(body) != len(self._asked) or set(body) - {0, 1}:
                raise ProtocolViolation("an answer that does not fit the question")
            pairs = zip(self._asked, body, strict=True)
            self.ended = frozenset(number for number, done in pairs if done)
            return b""
        raise ProtocolViolation("control messages out of order")

    def _answer(self, body: bytes) -> bytes:
        if len(body) < 2:
            raise ProtocolViolation("a short control message")
        (size,) = struct.unpack_from(">H", body)
        numbers = body[2 + size :]
        if size > _REASON_BYTES or 2 + size > len(body) or len(numbers) % _NUMBER.size:
            raise ProtocolViolation("a control message whose sizes do not fit")
        self.peer_reason = body[2 : 2 + size].decode("utf-8", "replace")
        return bytes(self._finished(number) for (number,) in _NUMBER.iter_unpack(numbers))
