"""State that stays between runs, and loops that sample tokens; not there before protocol 1.4.

Tokens travel as frames of a server stream (`Tokens`), not as JSON: a token must cost little.
"""

from __future__ import annotations

import struct
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

_HEAD = struct.Struct("<BIH")
_TOKEN_BYTES = 8

FloatText = Annotated[str, Field(pattern=r"^-?0x[01]\.[0-9a-f]{1,13}p[+-]\d{1,4}$")]
"""A finite float, as `float.hex` writes it."""

SeedText = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,19})$")]
"""An unsigned integer of 64 bits: beyond what a JSON number carries."""


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
    forced: list[list[Annotated[int, Field(ge=ENDED)]]] = Field(default_factory=list)


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
    """A frame: tokens of every row from index `first` on, at most `MAX_STEPS` steps."""
    flat = [token for step in steps for token in step]
    return _HEAD.pack(FRAME[0], first, len(steps)) + struct.pack(f"<{len(flat)}q", *flat)


def decode_tokens(data: bytes, rows: int) -> tuple[int, list[tuple[int, ...]]]:
    """The index of a frame's first step, and its steps. Raises GEN0509 for another form."""
    if len(data) < _HEAD.size or data[:1] != FRAME:
        raise GenieError("GEN0509", "a message of the stream holds no tokens")
    _, first, count = _HEAD.unpack_from(data)
    if not count or len(data) != _HEAD.size + count * rows * _TOKEN_BYTES:
        raise GenieError("GEN0509", "a message of the stream does not have its tokens' size")
    flat = struct.unpack_from(f"<{count * rows}q", data, _HEAD.size)
    if min(flat, default=0) < ENDED:
        raise GenieError("GEN0509", "a token is negative")
    return first, [flat[at * rows : (at + 1) * rows] for at in range(count)]
