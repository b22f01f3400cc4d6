"""Runs: looking up, admitting, starting, waiting, cancelling; and status."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from genie_schemas.messages._base import (
    Handle,
    Hex128,
    Hex256,
    Message,
    Milliseconds,
    Path,
    RunId,
    Text,
    Tolerant,
)
from genie_schemas.messages._generation import GenerationReport, GenerationRequest, StateRequest
from genie_schemas.messages._session import LazyCounters
from genie_schemas.plan import Count, Digest, Identifier, Name, Positive


class ExpectRequest(Message):
    """Expect a peer's data connection for link `link`, over `transport` alone if one is named."""

    session: Hex128
    link: Hex128
    key: Hex256
    transport: Path = "auto"


class ExpectReply(Message):
    """Where the peer dials."""

    endpoint: Text


class DialRequest(Message):
    """Dial the peer that expects link `link`."""

    session: Hex128
    link: Hex128
    key: Hex256
    endpoint: Text
    transport: Path = "auto"


class DialReply(Message):
    """The path that the link took ("shm", "tcp", "dpdk"), and why no better one: path → reason."""

    path: Text
    reasons: dict[Path, Text] = Field(default_factory=dict)


class LinksReply(Message):
    """The path that every link of the session has now: a lost one is left for the next."""

    paths: dict[Hex128, Path]


class RecallRequest(Message):
    """What does the ledger know of this run?"""

    session: Hex128
    plan_digest: Digest
    entrypoint: Identifier
    run_id: RunId
    inputs_digest: Digest


class RecordedOutput(Message):
    """A returned value on record: its concrete type, such as "f32[1,10]"."""

    value: Name
    type: Annotated[str, Field(max_length=4096)]
    bytes: Count


class RecallReply(Message):
    """`new`: it may run; `running`: ask again later; `recorded`: `outputs` can be fetched."""

    state: Literal["new", "running", "recorded"]
    outputs: list[RecordedOutput] = Field(default_factory=list)


class FetchRequest(Message):
    """Send recorded outputs to the client's buffers: value → handle."""

    session: Hex128
    plan_digest: Digest
    entrypoint: Identifier
    run_id: RunId
    inputs_digest: Digest
    outputs: dict[Name, Handle]
    timeout_ms: Milliseconds


class PrepareRequest(Message):
    """Admit a run and reserve all that it needs here.

    `durable` says that the caller named the run, so that the ledger keeps it; then
    `inputs_digest` is a must. `links` names the
    link of every transfer step whose other end is another node. `wait_ms` bounds the wait for
    memory, `deadline_ms` the run as a whole.

    `resident` names inputs that the session keeps here (input → kept tensor), `keep` outputs that
    stay here instead of being sent (value → its name from now on), `drop` kept tensors and
    `forget` plans that the session needs no more. They are not there before protocol 1.2.

    `state` is what a run of a sequence reads and moves on; without it, state begins anew and ends
    with the run. `generation` says how a loop samples. They are not there before protocol 1.4.
    """

    session: Hex128
    plan_digest: Digest
    entrypoint: Identifier
    run_id: RunId
    durable: bool
    inputs_digest: Digest | None = None
    dims: dict[Identifier, Count]
    links: dict[Name, Hex128]
    wait_ms: Milliseconds
    deadline_ms: Annotated[int, Field(ge=1, le=30 * 86_400_000)]
    resident: dict[Name, Hex128] = Field(default_factory=dict)
    keep: dict[Name, Hex128] = Field(default_factory=dict)
    drop: list[Hex128] = Field(default_factory=list)
    forget: list[Digest] = Field(default_factory=list)
    state: StateRequest | None = None
    generation: GenerationRequest | None = None


class PrepareReply(Message):
    """`run` names the prepared run; `None` when somebody else is running the same run id.

    Handles: where the client sends inputs (by name), where peers send (by transfer step).
    """

    run: Hex128 | None
    inputs: dict[Name, Handle] = Field(default_factory=dict)
    incoming: dict[Name, Handle] = Field(default_factory=dict)


class StartRequest(Message):
    """Go: where this node sends its transfers (by step) and its outputs (by value)."""

    session: Hex128
    run: Hex128
    outgoing: dict[Name, Handle]
    outputs: dict[Name, Handle]


class RunRequestId(Message):
    """A request about a prepared or running run (Release)."""

    session: Hex128
    run: Hex128


class WaitRequest(Message):
    """Wait up to `timeout_ms` for the end of a run."""

    session: Hex128
    run: Hex128
    timeout_ms: Annotated[int, Field(ge=0, le=60_000)]


class RunReport(Message):
    """What a run cost on this node. `attempts` counts the tries of its most tried device."""

    attempts: Count
    total_us: Count
    compute_us: Count
    wait_us: Count
    transfer_us: Count
    peak_bytes: dict[Identifier, Count]
    steps: Count
    generation: GenerationReport | None = None


class WaitReply(Message):
    """A run's state; `errors` tells why it failed.

    `retryable`: another run of the same loop may end better; the node itself does not retry loops.
    """

    state: Literal["running", "done", "failed"]
    report: RunReport | None = None
    errors: list[dict[str, Any]] = Field(default_factory=list)
    retryable: bool = False


class CancelRequest(Message):
    """Cancel every run going on under a run id; needs no session."""

    run_id: RunId


class CancelReply(Message):
    """How many runs were told to stop."""

    cancelled: Count


class ActiveRun(Tolerant):
    """A run that is going on; `phase` is the entry point that a loop has come to."""

    run_id: RunId
    plan_digest: Digest
    entrypoint: Identifier
    state: Text
    age_ms: Count
    phase: Text = ""


class PoolStatus(Tolerant):
    """The shared memory in which a device's values lie.

    `used_bytes` were asked for, of at most `limit_bytes`; `arena_bytes` are mapped for it,
    `huge_bytes` of them in 2 MiB pages. `largest_free_bytes` is the largest request that would be
    served now, `fragmentation_ppm` the share of the bytes not in use that it leaves out, in
    millionths. `assembled` of the `regions` lie in scattered pages. Of the requests, `waits` had
    to wait, `waited_ms` together, and `refused` got nothing; `waiting` wait now.
    """

    limit_bytes: Count
    arena_bytes: Count
    huge_bytes: Count
    used_bytes: Count
    peak_bytes: Count
    largest_free_bytes: Count
    fragmentation_ppm: Count
    arenas: Count
    regions: Count
    assembled: Count
    waiting: Count
    waits: Count
    waited_ms: Count
    refused: Count


class DeviceStatus(Tolerant):
    """A device and its memory: `reserved_bytes` by runs, `constant_bytes` by weights.

    `state_bytes` are held by the states of sequences.
    """

    id: Identifier
    kind: Literal["cpu", "cuda"]
    memory_bytes: Positive
    reserved_bytes: Count
    constant_bytes: Count
    pool: PoolStatus | None = None
    state_bytes: Count = 0


class GpuDirectStatus(Tolerant):
    """How bytes reach a GPU: straight, or through pinned buffers; "none" without a GPU."""

    mode: Literal["direct", "bounce", "none"]
    reason: Text


class LazySession(LazyCounters):
    """The lazy device of one session, which has been open for `age_s`."""

    age_s: Count


class StatesStatus(Tolerant):
    """The sequences whose state the node holds, and the bytes of it over all devices."""

    count: Count
    bytes: Count


class StatusReply(Tolerant):
    """What `genie status` shows. `runs` ended well since the start, `plans` are installed.

    It is asked for without a session, so that no version is agreed: an older client ignores what
    it does not know. `lazy` are the sessions in which a lazy device counts; `telemetry` has the
    totals, those of sessions that have ended included.
    """

    version: Text
    node: Hex128
    boot_id: Hex128
    epoch: Count
    uptime_s: Count
    draining: bool
    runs: Count
    plans: Count
    sessions: Count
    devices: list[DeviceStatus]
    active: list[ActiveRun]
    telemetry: dict[str, int]
    gpu_direct: GpuDirectStatus | None = None
    lazy: list[LazySession] = Field(default_factory=list)
    states: StatesStatus | None = None
