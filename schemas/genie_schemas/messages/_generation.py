"""State that stays between runs, and loops that sample tokens; not there before protocol 1.4.

Tokens travel as frames of a server stream (`Tokens`), not as JSON: a token must cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from genie_schemas.errors import GenieError
from genie_schemas.messages._base import Hex128, Message
from genie_schemas.plan import Count, Positive

FRAME = b"\x01"
"""The first byte of a frame; a JSON error begins with a brace."""

ENDED = -1
"""Stands for the token of a row that has ended."""

MAX_STEPS = 65_535
"""Steps of one frame."""

_MOST_BYTES = 9
"""Bytes of a number of 63 bits."""

FloatText = Annotated[str, Field(pattern=r"^-?0x[01]\.[0-9a-f]{1,13}p[+-]\d{1,4}$")]
"""A finite float, as `float.hex` writes it."""

SeedText = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,19})$")]
"""An unsigned integer of 64 bits: beyond what a JSON number carries."""


_Row = Annotated[list[Annotated[int, Field(ge=ENDED)]], Field(max_length=1 << 20)]


class StateRequest(Message):
    """The state of a sequence that a run reads and moves on from `version` to the next.

    At version 0 the node makes it.
    """

    sequence: Hex128
    version: Count


class GenerationRequest(Message):
    """How a loop samples: see `genie_runtime.ports.Generation`.

    `forced` holds the first tokens of every row, -1 where it had ended: a run that was interrupted
    goes on behind them.
    """

    max_new_tokens: Positive
    temperature: FloatText
    top_k: Count
    top_p: FloatText
    seed: SeedText
    forced: Annotated[list[_Row], Field(max_length=65_536)] = Field(default_factory=list)


class TokensRequest(Message):
    """Stream the tokens of a run from index `after` on, as they come."""

    session: Hex128
    run: Hex128
    after: Count


class DropStateRequest(Message):
    """Free the state of a sequence (DropState)."""

    session: Hex128
    sequence: Hex128


class GenerationReport(Message):
    """What a loop sampled on this node in this run: without forced tokens.

    `ttft_us` is from the run's start to its first token, `span_us` from its first to its last,
    both when they left the node.
    """

    tokens: Count
    ttft_us: Count
    span_us: Count


def encode_tokens(first: int, steps: Sequence[Sequence[int]]) -> bytes:
    """A frame: tokens of every row from index `first` on, at most `MAX_STEPS` steps.

    After the first byte come the index, the number of steps, and every token plus one, step by
    step, in as many bytes as each needs: seven bits a byte, the lowest first, all but the last byte
    of a number with the highest bit set.
    """
    numbers = [first, len(steps), *(token - ENDED for step in steps for token in step)]
    return FRAME + b"".join(map(_pack, numbers))


def decode_tokens(data: bytes, rows: int) -> tuple[int, list[tuple[int, ...]]]:
    """The index of a frame's first step, and its steps. Raises GEN0509 for another form."""
    if data[:1] != FRAME:
        raise GenieError("GEN0509", "a message of the stream holds no tokens")
    first, at = _unpack(data, 1)
    count, at = _unpack(data, at)
    if not 0 < count <= MAX_STEPS or count * rows > len(data) - at:
        raise GenieError("GEN0509", "a message of the stream does not have its tokens' size")
    flat = []
    for _ in range(count * rows):
        number, at = _unpack(data, at)
        flat.append(number + ENDED)
    if at != len(data):
        raise GenieError("GEN0509", "a message of the stream does not have its tokens' size")
    return first, [tuple(flat[i * rows : (i + 1) * rows]) for i in range(count)]


def _pack(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _unpack(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    number = 0
    for shift in range(0, 7 * _MOST_BYTES, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return number, at
    raise GenieError("GEN0509", "a message of the stream ends in the middle of a number")
