"""What supervisor and worker say to each other at every turn of a loop: bytes instead of JSON.

A value that passes from device to device waits for these messages, and finds caches that hold the
weights of the step before it: what counts is how little code they take. All integers are
big-endian; texts are UTF-8.

    Told(Ready)     "R", ticket u64, step
    Told(Sampled)   "S", ticket u64, index u64, a token i64 for each row
    Deliver         "D", bytes of run_key u16, run_key, step
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from genie_runtime.ports import Ready, Sampled
from genie_schemas.errors import GenieError

__all__ = ["Deliver", "Told", "broken", "encode", "parse_command", "parse_report"]

_READY, _SAMPLED, _DELIVER = b"RSD"
_TICKET = struct.Struct(">BQ")
_INDEX = struct.Struct(">BQQ")
_KEY = struct.Struct(">BH")
_TOKEN = 8
_MAX_TEXT = 1024
_MAX_INT = 2**53 - 1


@dataclass(frozen=True)
class Told:
    """An event of a run that goes on."""

    ticket: int
    event: Ready | Sampled


@dataclass(frozen=True)
class Deliver:
    """The bytes of an incoming transfer are there."""

    run_key: str
    step: str


def encode(message: Told | Deliver) -> bytes:
    """The bytes of a message. Raises GenieError GEN0454 for a text that is too long."""
    if isinstance(message, Deliver):
        key = message.run_key.encode()
        if len(key) > _MAX_TEXT:
            raise broken(f"a run's key of {len(key)} bytes")
        return _KEY.pack(_DELIVER, len(key)) + key + message.step.encode()
    event = message.event
    if isinstance(event, Ready):
        return _TICKET.pack(_READY, message.ticket) + event.step.encode()
    head = _INDEX.pack(_SAMPLED, message.ticket, event.index)
    return head + struct.pack(f">{len(event.tokens)}q", *event.tokens)


def parse_report(data: bytes) -> Told:
    """Read what a worker says. Raises GenieError GEN0454."""
    try:
        if data[0] == _READY:
            ticket = _TICKET.unpack_from(data)[1]
            if ticket <= _MAX_INT:
                return Told(ticket, Ready(_text(data[_TICKET.size :])))
        elif data[0] == _SAMPLED:
            _, ticket, index = _INDEX.unpack_from(data)
            rows, rest = divmod(len(data) - _INDEX.size, _TOKEN)
            tokens = struct.unpack_from(f">{rows}q", data, _INDEX.size)
            sound = rows and not rest and min(tokens) >= -1 and max(tokens) <= _MAX_INT
            if sound and max(ticket, index) <= _MAX_INT:
                return Told(ticket, Sampled(index, tokens))
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise broken(str(error)) from None
    raise broken("a brief report that no worker makes")


def parse_command(data: bytes) -> Deliver:
    """Read what a supervisor says. Raises GenieError GEN0454."""
    try:
        kind, size = _KEY.unpack_from(data)
        end = _KEY.size + size
        if kind == _DELIVER and end <= len(data):
            return Deliver(_text(data[_KEY.size : end]), _text(data[end:]))
    except (struct.error, UnicodeDecodeError) as error:
        raise broken(str(error)) from None
    raise broken("a brief command that no supervisor makes")


def _text(data: bytes) -> str:
    if len(data) > _MAX_TEXT:
        raise broken(f"a text of {len(data)} bytes")
    return data.decode()


def broken(cause: str) -> GenieError:
    """GEN0454 for what the other side never says."""
    return GenieError(
        "GEN0454",
        "an executor and its supervisor do not understand each other",
        cause=cause,
        remedy="both must come from one installation of Genie",
    )
