"""What all messages share: their base, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SERVICE = "genie.v1.Control"
RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$"
MAX_MESSAGE = 160 * 1024 * 1024
"""Bytes of a message: a plan of 64 MiB as a JSON string can double by escaping."""

WINDOW = 4 * 1024 * 1024
"""Bytes of a message that may be under way: fixed, for gRPC's measuring pings every heartbeat."""

Hex128 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=RUN_ID)]
Text = Annotated[str, Field(max_length=256)]
Path = Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")]
Handle = dict[str, Any]
Milliseconds = Annotated[int, Field(ge=0, le=30 * 86_400_000)]


class Message(BaseModel):
    """Base of every message."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Tolerant(BaseModel):
    """Base of what is said before a version is agreed: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)


class Empty(Message):
    """Nothing to say."""
