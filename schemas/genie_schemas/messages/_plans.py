"""Installing plans and bringing their constants."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from genie_schemas.messages._base import Handle, Hex128, Hex256, Message
from genie_schemas.plan import Count, Digest, Identifier


class InstallRequest(Message):
    """Make a plan usable in the session. Without `plan`, only asks whether it is known."""

    session: Hex128
    plan_digest: Digest
    devices: Annotated[list[Identifier], Field(min_length=1, max_length=1024)]
    plan: str | None = None


class InstallReply(Message):
    """`known` is false when the plan's text is wanted. `binding`: plan device → node device."""

    known: bool
    binding: dict[Identifier, Identifier] = Field(default_factory=dict)


class PlanRequest(Message):
    """A request about an installed plan (Missing)."""

    session: Hex128
    plan_digest: Digest


class MissingConstant(Message):
    """A constant that the node lacks; `chunks` lists the missing ones when some are there."""

    digest: Digest
    bytes: Count
    chunks: list[Count] | None = None


class MissingReply(Message):
    """Every constant of the plan that the node's devices still need."""

    constants: list[MissingConstant]


class OfferedConstant(Message):
    """A constant about to be sent: the chunk digests combine to `digest`."""

    digest: Digest
    bytes: Count
    chunks: Annotated[list[Hex256], Field(min_length=1)]


class PutRequest(Message):
    """Ask where to send missing chunks."""

    session: Hex128
    plan_digest: Digest
    constants: Annotated[list[OfferedConstant], Field(min_length=1, max_length=65536)]


class ChunkTarget(Message):
    """Where chunk number `index` of a constant goes."""

    index: Count
    handle: Handle


class PutTarget(Message):
    """Where the missing chunks of one constant go."""

    digest: Digest
    chunks: list[ChunkTarget]


class PutReply(Message):
    """One target a constant asked for, in the same order."""

    targets: list[PutTarget]


class SealRequest(Message):
    """The chunks of these constants were sent: verify them and keep what is complete."""

    session: Hex128
    plan_digest: Digest
    digests: Annotated[list[Digest], Field(min_length=1, max_length=65536)]
