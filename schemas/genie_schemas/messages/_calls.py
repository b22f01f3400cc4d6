"""Opening and closing call channels; the invocations themselves go over the data plane."""

from __future__ import annotations

from pydantic import Field

from genie_schemas.messages._base import Handle, Hex128, Message
from genie_schemas.plan import Count, Digest, Identifier, Name


class OpenCallRequest(Message):
    """Reserve what invocations of an entry point with these dims need on this node.

    `links` names the link of every transfer step whose other end is another node; `reply` is where
    the head of a reply goes, `outputs` where large values go.
    """

    session: Hex128
    plan_digest: Digest
    entrypoint: Identifier
    dims: dict[Identifier, Count]
    links: dict[Name, Hex128]
    reply: Handle
    outputs: dict[Name, Handle]


class OpenCallReply(Message):
    """`request` is where the head of a request goes, `inputs` where large values go.

    `incoming`: where peers send, by transfer step.
    """

    call: Hex128
    request: Handle
    inputs: dict[Name, Handle] = Field(default_factory=dict)
    incoming: dict[Name, Handle] = Field(default_factory=dict)


class LinkCallRequest(Message):
    """Where this node sends its transfers (by step), before the first invocation."""

    session: Hex128
    call: Hex128
    outgoing: dict[Name, Handle]


class CallRequestId(Message):
    """A request about a call channel (CloseCall)."""

    session: Hex128
    call: Hex128
