"""What supervisor and worker say to each other: framed strict JSON over a private socket.

A frame is two big-endian 32-bit lengths, a JSON object of the first length and raw bytes of the
second (a plan's text). Sizes are checked before anything is allocated. A frame that hands over an
arena is followed by one byte that carries the descriptor. No torch here: both sides import it.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from genie_runtime.executors.run_message import ROWS, Area, Int, Message, Run, Text, Token, area
from genie_runtime.ports import (
    DeviceSpec,
    ExecutorFacts,
    Failed,
    Finished,
    Ready,
    RunEvent,
    RunStats,
    Sampled,
)
from genie_schemas import canonical
from genie_schemas.errors import GenieError
from genie_schemas.reader import MAX_BYTES

__all__ = [
    "Boot",
    "Cancel",
    "Command",
    "Deliver",
    "ErrorData",
    "Event",
    "FrameDecoder",
    "FreeState",
    "Hello",
    "Install",
    "Load",
    "MapArena",
    "Reply",
    "Report",
    "Run",
    "Uninstall",
    "UnmapArena",
    "area",
    "encode",
    "parse_command",
    "parse_report",
]

HEADER = struct.Struct(">II")
PING = struct.Struct(">Q")
PONG = struct.Struct(">QQ")
"""A liveness answer: the ping's number, and for how many ms a kernel is past its deadline."""

COMMAND_LIMIT = 32 << 20
REPORT_LIMIT = 1 << 20
BLOB_LIMIT = MAX_BYTES


class Boot(Message):
    """A worker's only argument: its device, and the descriptors that it inherits."""

    id: str
    device: Literal["cpu", "cuda"]
    index: Int
    memory_bytes: Int
    threads: Int
    parent: Int
    control: Int
    life: Int
    recorder: Int

    def spec(self) -> DeviceSpec:
        """The device."""
        return DeviceSpec(self.id, self.device, self.index, self.memory_bytes)


# -- supervisor to worker ----------------------------------------------------------------------


class MapArena(Message):
    """Map `size` bytes: those of `parts` (see `Arena.assemble`), else the descriptor follows."""

    kind: Literal["map"] = "map"
    arena: Int
    size: Int
    parts: list[Area] = Field(default_factory=list, max_length=4096)


class UnmapArena(Message):
    """Forget an arena."""

    kind: Literal["unmap"] = "unmap"
    arena: Int


class Install(Message):
    """Install the plan whose text is the frame's bytes, for one of its devices."""

    kind: Literal["install"] = "install"
    id: Int
    digest: Text
    device: Text


class Uninstall(Message):
    """Forget a plan."""

    kind: Literal["uninstall"] = "uninstall"
    digest: Text


class Load(Message):
    """Make constants resident."""

    kind: Literal["load"] = "load"
    id: Int
    digest: Text
    constants: dict[Text, Area]


class Deliver(Message):
    """The bytes of an incoming transfer are there."""

    kind: Literal["deliver"] = "deliver"
    run_key: Text
    step: Text


class Cancel(Message):
    """End a run."""

    kind: Literal["cancel"] = "cancel"
    run_key: Text


class FreeState(Message):
    """Drop the state under a key."""

    kind: Literal["free_state"] = "free_state"
    key: Text


Command = MapArena | UnmapArena | Install | Uninstall | Load | Run | Deliver | Cancel | FreeState

# -- worker to supervisor ----------------------------------------------------------------------


class PlaceData(Message):
    """A `Place`."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    text: str | None = None
    length: int = 1
    path: str | None = None


class ErrorData(Message):
    """A `GenieError`."""

    code: str
    message: str
    place: PlaceData | None
    cause: str | None
    remedy: str | None
    context: dict[str, str | int | bool | None]

    @classmethod
    def of(cls, error: GenieError) -> ErrorData:
        """The message for an error."""
        data = error.to_json()
        plain = (str, int, bool, type(None))
        context = {k: v if isinstance(v, plain) else str(v) for k, v in error.context.items()}
        return cls.model_validate(data | {"context": context})

    def error(self) -> GenieError:
        """The error that it carries."""
        return GenieError.from_json(self.model_dump(exclude_none=False))


class Hello(Message):
    """The worker is ready, or cannot be."""

    kind: Literal["hello"] = "hello"
    torch: str = ""
    threads: Int = 0
    device_name: str = ""
    memory_bytes: Int = 0
    capability: str = ""
    error: ErrorData | None = None

    def facts(self) -> ExecutorFacts:
        """What it says of the executor."""
        return ExecutorFacts(
            self.torch, self.threads, self.device_name, self.memory_bytes, self.capability
        )


class Reply(Message):
    """The answer to an install or a load."""

    kind: Literal["reply"] = "reply"
    id: Int
    error: ErrorData | None = None


class Event(Message):
    """An event of a run: `step` for ready, `index` and `tokens` for sampled, `stats` for finished.

    `stats` are in field order.
    """

    kind: Literal["event"] = "event"
    ticket: Int
    what: Literal["ready", "sampled", "finished", "failed"]
    step: str = ""
    index: Int = 0
    tokens: Annotated[list[Token], ROWS] = Field(default_factory=list)
    stats: list[Int] = Field(default_factory=list, max_length=4)
    error: ErrorData | None = None
    retryable: bool = False

    @classmethod
    def of(cls, ticket: int, event: RunEvent) -> Event:
        """The message for an event."""
        if isinstance(event, Ready):
            return cls(ticket=ticket, what="ready", step=event.step)
        if isinstance(event, Sampled):
            tokens = list(event.tokens)
            return cls(ticket=ticket, what="sampled", index=event.index, tokens=tokens)
        if isinstance(event, Finished):
            s = event.stats
            stats = [s.compute_ns, s.wait_ns, s.peak_bytes, s.steps]
            return cls(ticket=ticket, what="finished", stats=stats)
        error = ErrorData.of(event.error)
        return cls(ticket=ticket, what="failed", error=error, retryable=event.retryable)

    def event(self) -> RunEvent:
        """The event that it carries. Raises GenieError GEN0454 when it carries none."""
        if self.what == "ready":
            return Ready(self.step)
        if self.what == "sampled" and self.tokens:
            return Sampled(self.index, tuple(self.tokens))
        if self.what == "finished" and len(self.stats) == 4:
            return Finished(RunStats(*self.stats))
        if self.what == "failed" and self.error is not None:
            return Failed(self.error.error(), self.retryable)
        raise _broken(f"an event {self.what!r} without what belongs to it")


Report = Hello | Reply | Event

_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="kind")])
_REPORT: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])


def encode(message: Command | Report, blob: bytes = b"") -> bytes:
    """The frame of a message. Raises GenieError GEN0454 when it is larger than a receiver takes."""
    text = message.model_dump_json(exclude_defaults=False).encode()
    limit = REPORT_LIMIT if isinstance(message, Report) else COMMAND_LIMIT
    if len(text) > limit or len(blob) > BLOB_LIMIT:
        raise _broken(f"a message of {len(text)} and {len(blob)} bytes")
    return HEADER.pack(len(text), len(blob)) + text + blob


def check_sizes(header: bytes, limit: int, blob_limit: int) -> tuple[int, int]:
    """The two lengths of a frame. Raises GenieError GEN0454 when one is beyond its limit."""
    text, blob = HEADER.unpack(header)
    if text > limit or blob > blob_limit:
        raise _broken(f"a frame announces {text} and {blob} bytes")
    return text, blob


def parse_command(text: bytes) -> Command:
    """Read a command. Raises GenieError GEN0454."""
    found: Command = _parse(_COMMAND, text)
    return found


def parse_report(text: bytes) -> Report:
    """Read a report. Raises GenieError GEN0454."""
    found: Report = _parse(_REPORT, text)
    return found


def _parse(adapter: TypeAdapter[Any], text: bytes) -> Any:
    try:
        # On the way of every request: one quick pass, which stands when the text is what `encode`
        # makes of its result. Whatever else it is, the strict reader has the word.
        found = adapter.validate_json(text)
        if found.model_dump_json().encode() == text:
            return found
        return adapter.validate_python(canonical.loads(text.decode("utf-8")))
    except (canonical.StrictJsonError, UnicodeDecodeError, ValidationError) as error:
        raise _broken(str(error)[:300]) from None


def _broken(cause: str) -> GenieError:
    return GenieError(
        "GEN0454",
        "an executor and its supervisor do not understand each other",
        cause=cause,
        remedy="both must come from one installation of Genie",
    )


class FrameDecoder:
    """Reports out of a byte stream that comes in pieces; frames here carry no raw bytes."""

    def __init__(self, limit: int = REPORT_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """The reports that `data` completes. Raises GenieError GEN0454."""
        self._data += data
        found = []
        while len(self._data) >= HEADER.size:
            size, _ = check_sizes(bytes(self._data[: HEADER.size]), self._limit, 0)
            end = HEADER.size + size
            if len(self._data) < end:
                break
            found.append(parse_report(bytes(self._data[HEADER.size : end])))
            del self._data[:end]
        return found
