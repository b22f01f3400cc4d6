"""Messages of the control service `genie.v1.Control`, version 1.0: JSON, strictly parsed.

A request is one message; a reply is an envelope `{"ok": …}` or `{"errors": [GenieError, …]}`.
Bulk bytes never ride here: messages carry digests, and DMAHandles of the data plane as the plain
JSON values that `DMAHandle.to_json` gives (checked by `DMAHandle.from_json` where they are used).

All numbers are integers, times milliseconds or microseconds as their names say. Only `OpenRequest`
and `OpenReply` tolerate unknown fields: they are what a newer peer says before a version is agreed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genie_schemas import canonical
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.plan import Count, Digest, Identifier, Name, Positive

SERVICE = "genie.v1.Control"
RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$"
MAX_MESSAGE = 160 * 1024 * 1024
"""Bytes of a message: a plan of 64 MiB as a JSON string can double by escaping."""

Hex128 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=RUN_ID)]
Text = Annotated[str, Field(max_length=256)]
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")]
Handle = dict[str, Any]
Milliseconds = Annotated[int, Field(ge=0, le=30 * 86_400_000)]


class Message(BaseModel):
    """Base of every message."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Empty(Message):
    """Nothing to say."""


# -- session ---------------------------------------------------------------------------------


class OpenRequest(_Tolerant):
    """What the client speaks: protocol, plan formats it may send, features it can use."""

    protocol: Version
    client: Text
    formats: Annotated[list[Version], Field(min_length=1, max_length=32)]
    features: Annotated[list[Text], Field(max_length=256)]


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


class OpenReply(_Tolerant):
    """What is bound: the lower protocol version, the features that both have, the node's facts.

    `node` identifies the daemon across restarts, `boot_id` this start of it; `epoch` fences its
    ledger. The session ends when no heartbeat came for `lease_ms`.
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


class SessionRequest(Message):
    """A request about the session as a whole (Close, Heartbeat)."""

    session: Hex128


class Pulse(Message):
    """The node's half of a heartbeat: telemetry of the moment."""

    uptime_ms: Count
    active_runs: Count
    runs: Count
    bytes_in: Count
    bytes_out: Count
    reserved_bytes: Count


# -- plans and constants ---------------------------------------------------------------------


class InstallRequest(Message):
    """Make a plan usable in the session. Without `plan`, only asks whether it is known."""

    session: Hex128
    plan_digest: Digest
    devices: Annotated[list[Identifier], Field(min_length=1, max_length=1024)]
    plan: str | None = None


class InstallReply(Message):
    """`known` is false when the plan's text is wanted. `binding`: plan device → node device."""

    known: bool
    binding: dict[Identifier, Identifier] = {}


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


# -- runs ------------------------------------------------------------------------------------


class ExpectRequest(Message):
    """Expect a peer's data connection for link `link`."""

    session: Hex128
    link: Hex128
    key: Hex256


class ExpectReply(Message):
    """Where the peer dials."""

    endpoint: Text


class DialRequest(Message):
    """Dial the peer that expects link `link`."""

    session: Hex128
    link: Hex128
    key: Hex256
    endpoint: Text


class DialReply(Message):
    """The path that the link took ("unix", "tcp")."""

    path: Text


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
    outputs: list[RecordedOutput] = []


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


class PrepareReply(Message):
    """`run` names the prepared run; `None` when somebody else is running the same run id.

    Handles: where the client sends inputs (by name), where peers send (by transfer step).
    """

    run: Hex128 | None
    inputs: dict[Name, Handle] = {}
    incoming: dict[Name, Handle] = {}


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


class WaitReply(Message):
    """A run's state; `errors` tells why it failed."""

    state: Literal["running", "done", "failed"]
    report: RunReport | None = None
    errors: list[dict[str, Any]] = []


class CancelRequest(Message):
    """Cancel every run going on under a run id; needs no session."""

    run_id: RunId


class CancelReply(Message):
    """How many runs were told to stop."""

    cancelled: Count


class ActiveRun(Message):
    """A run that is going on."""

    run_id: RunId
    plan_digest: Digest
    entrypoint: Identifier
    state: Text
    age_ms: Count


class DeviceStatus(Message):
    """A device and its memory: `reserved_bytes` by runs, `constant_bytes` by weights."""

    id: Identifier
    kind: Literal["cpu", "cuda"]
    memory_bytes: Positive
    reserved_bytes: Count
    constant_bytes: Count


class StatusReply(Message):
    """What `genie status` shows. `runs` ended well since the start, `plans` are installed."""

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


# -- envelope --------------------------------------------------------------------------------

M = TypeVar("M", bound=BaseModel)


def encode(message: BaseModel) -> bytes:
    """A request on the wire."""
    return message.model_dump_json(exclude_defaults=True).encode()


def encode_reply(message: BaseModel) -> bytes:
    """A reply on the wire."""
    return b'{"ok":' + message.model_dump_json(exclude_defaults=True).encode() + b"}"


def encode_error(error: GenieError) -> bytes:
    """A failure on the wire: every error of a GenieErrors, each whole."""
    errors = error.errors if isinstance(error, GenieErrors) else (error,)
    return canonical.compact({"errors": [_plain(e.to_json()) for e in errors]}).encode()


def _plain(value: Any) -> Any:
    """The value with everything that strict JSON refuses (floats, other objects) as text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= canonical.MAX_SAFE_INT else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def decode(model: type[M], data: bytes) -> M:
    """Read one message; GenieError GEN0509 says where it is malformed, never what it held."""
    try:
        return model.model_validate(_parse(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise _malformed(model, f"{path}: {first['msg']}") from None


def decode_reply(model: type[M], data: bytes) -> M:
    """Read a reply: the message, or the peer's error raised as ours."""
    body = _parse(data)
    if isinstance(body, dict) and set(body) == {"ok"}:
        try:
            return model.model_validate(body["ok"])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            raise _malformed(model, f"{path}: {first['msg']}") from None
    if isinstance(body, dict) and set(body) == {"errors"}:
        raise decode_errors(body["errors"])
    raise _malformed(model, "neither a reply nor an error")


def decode_errors(items: Any) -> GenieError:
    """The errors that a peer sent, as one."""
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        return GenieError("GEN0509", "the peer reported a failure that cannot be read")
    errors = [GenieError.from_json(item) for item in items[:64]]
    return errors[0] if len(errors) == 1 else GenieErrors(errors)


def _parse(data: bytes) -> Any:
    if len(data) > MAX_MESSAGE:
        raise GenieError("GEN0511", f"a message of more than {MAX_MESSAGE >> 20} MiB")
    try:
        return canonical.loads(data.decode("utf-8"))
    except (canonical.StrictJsonError, UnicodeDecodeError) as error:
        raise GenieError("GEN0509", "a message is no strict JSON", cause=str(error)) from None


def _malformed(model: type[BaseModel], cause: str) -> GenieError:
    return GenieError("GEN0509", f"the message is no {model.__name__}", cause=cause)
