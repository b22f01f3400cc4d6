"""Opening, keeping and closing a session."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genie_schemas.messages._base import Hex128, Hex256, Message, Path, Text, Tolerant, Version
from genie_schemas.plan import Count, Identifier, Positive


class OpenRequest(Tolerant):
    """What the client speaks: protocol, plan formats it may send, features it can use.

    `transport` is the data path that the user named, or "auto".
    """

    protocol: Version
    client: Text
    formats: Annotated[list[Version], Field(min_length=1, max_length=32)]
    features: Annotated[list[Text], Field(max_length=256)]
    transport: Path = "auto"


class DeviceInfo(Message):
    """A device that the node offers."""

    id: Identifier
    kind: Literal["cpu", "cuda"]
    memory_bytes: Positive


class DataEndpoint(Message):
    """Where the client's data connection goes, and the key that it must prove."""

    endpoint: Text
    session: Text
    key: Hex256


class OpenReply(Tolerant):
    """What is bound: the lower protocol version, the features that both have, the node's facts.

    `node` identifies the daemon across restarts, `boot_id` this start of it; `epoch` fences its
    ledger. The session ends when no heartbeat came for `lease_ms`. `paths` are those on which
    other daemons can reach this one ("shm", "tcp", "dpdk"); older daemons do not say.
    """

    protocol: Version
    session: Hex128
    node: Hex128
    boot_id: Hex128
    epoch: Count
    version: Text
    torch: Text
    threads: Positive
    formats: list[Version]
    features: list[Text]
    devices: list[DeviceInfo]
    data: DataEndpoint
    lease_ms: Positive
    heartbeat_ms: Positive
    paths: list[Path] = Field(default_factory=list)


class SessionRequest(Message):
    """A request about the session as a whole (Links)."""

    session: Hex128


class LazyCounters(Tolerant):
    """What a program's lazy device has counted since it began: numbers alone, no names, no lines.

    `ops_intercepted` were recorded; `graph_ops` of them ran, in `graphs_run` graphs, whose plan was
    there (`graph_cache_hits`) or was made (`graph_cache_misses`). `host_fallbacks` operators ran
    where the program runs, and `synchronisations` times it waited for a value.
    """

    ops_intercepted: Count = 0
    graphs_run: Count = 0
    graph_ops: Count = 0
    graph_cache_hits: Count = 0
    graph_cache_misses: Count = 0
    host_fallbacks: Count = 0
    synchronisations: Count = 0


AS_BEFORE = b""
"""A heartbeat with nothing new to say; not there before protocol 1.5.

From the client it repeats the last message of its stream that could be read; from the node it is
the answer to that: the session is kept, and the node lives.
"""


class KeepRequest(SessionRequest):
    """The client's half of a heartbeat, and its farewell (Close).

    `lazy` is what its lazy device has counted, if it uses one; not there before protocol 1.3.
    """

    lazy: LazyCounters | None = None


class Pulse(Message):
    """The node's half of a heartbeat: telemetry of the moment, in answer to each `KeepRequest`."""

    uptime_ms: Count
    active_runs: Count
    runs: Count
    bytes_in: Count
    bytes_out: Count
    reserved_bytes: Count
