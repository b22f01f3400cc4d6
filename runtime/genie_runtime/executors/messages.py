"""What supervisor and worker say to each other: framed strict JSON over a private socket.

A frame is two big-endian 32-bit lengths, a JSON object of the first length and raw bytes of the
second: a plan's text, or, where there is no object, a message of `brief`. Sizes are checked before
anything is allocated. A frame that hands over an arena is followed by one byte that carries the
descriptor. No torch here: both sides import it.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from genie_runtime.executors import brief
from genie_runtime.executors.brief import Deliver, Told
from genie_runtime.executors.run_message import Area, Int, Message, Run, Text, area
from genie_runtime.ports import (
    DeviceSpec,
    ExecutorFacts,
    Failed,
    Finished,
    RunStats,
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
    "Told",
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


class Cancel(Message):
    """End a run."""

    kind: Literal["cancel"] = "cancel"
    run_key: Text


class FreeState(Message):
    """Drop the state under a key."""

    kind: Literal["free_state"] = "free_state"
    key: Text


_Command = MapArena | UnmapArena | Install | Uninstall | Load | Run | Cancel | FreeState
Command = _Command | Deliver

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
    """The last event of a run: `stats`, in field order, for finished."""

    kind: Literal["event"] = "event"
    ticket: Int
    what: Literal["finished", "failed"]
    stats: list[Int] = Field(default_factory=list, max_length=4)
    error: ErrorData | None = None
    retryable: bool = False

    @classmethod
    def of(cls, ticket: int, event: Finished | Failed) -> Event:
        """The message for an event."""
        if isinstance(event, Finished):
            s = event.stats
            stats = [s.compute_ns, s.wait_ns, s.peak_bytes, s.steps]
            return cls(ticket=ticket, what="finished", stats=stats)
        error = ErrorData.of(event.error)
        return cls(ticket=ticket, what="failed", error=error, retryable=event.retryable)

    def event(self) -> Finished | Failed:
        """The event that it carries. Raises GenieError GEN0454 when it carries none."""
        if self.what == "finished" and len(self.stats) == 4:
            return Finished(RunStats(*self.stats))
        if self.what == "failed" and self.error is not None:
            return Failed(self.error.error(), self.retryable)
        raise brief.broken(f"an event {self.what!r} without what belongs to it")


_Report = Hello | Reply | Event
Report = _Report | Told

_COMMAND: TypeAdapter[_Command] = TypeAdapter(Annotated[_Command, Field(discriminator="kind")])
_REPORT: TypeAdapter[_Report] = TypeAdapter(Annotated[_Report, Field(discriminator="kind")])


def encode(message: Command | Report, blob: bytes = b"") -> bytes:
    """The frame of a message. Raises GenieError GEN0454 when it is larger than a receiver takes."""
    if isinstance(message, Told | Deliver):
        data = brief.encode(message)
        if len(data) > REPORT_LIMIT or blob:
            raise brief.broken(f"a brief message of {len(data)} bytes")
        return HEADER.pack(0, len(data)) + data
    text = message.model_dump_json(exclude_defaults=False).encode()
    limit = REPORT_LIMIT if isinstance(message, _Report) else COMMAND_LIMIT
    if len(text) > limit or len(blob) > BLOB_LIMIT:
        raise brief.broken(f"a message of {len(text)} and {len(blob)} bytes")
    return HEADER.pack(len(text), len(blob)) + text + blob


def check_sizes(header: bytes, limit: int, blob_limit: int) -> tuple[int, int]:
    """The two lengths of a frame. Raises GenieError GEN0454 when one is beyond its limit."""
    text, blob = HEADER.unpack(header)
    if text > limit or blob > (blob_limit if text else REPORT_LIMIT):
        raise brief.broken(f"a frame announces {text} and {blob} bytes")
    return text, blob


def parse_command(text: bytes, blob: bytes = b"") -> Command:
    """Read a command: a frame's text, or its bytes when it has none. Raises GenieError GEN0454."""
    if not text:
        return brief.parse_command(blob)
    found: _Command = _parse(_COMMAND, text)
    return found


def parse_report(text: bytes, blob: bytes = b"") -> Report:
    """Read a report: a frame's text, or its bytes when it has none. Raises GenieError GEN0454."""
    if not text:
        return brief.parse_report(blob)
    found: _Report = _parse(_REPORT, text)
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
        raise brief.broken(str(error)[:300]) from None


class FrameDecoder:
    """Reports out of a byte stream that comes in pieces; frames have an object or bytes here."""

    def __init__(self, limit: int = REPORT_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """The reports that `data` completes. Raises GenieError GEN0454."""
        self._data += data
        found = []
        while len(self._data) >= HEADER.size:
            size, extra = check_sizes(bytes(self._data[: HEADER.size]), self._limit, 0)
            middle = HEADER.size + size
            end = middle + extra
            if len(self._data) < end:
                break
            text, blob = bytes(self._data[HEADER.size : middle]), bytes(self._data[middle:end])
            found.append(parse_report(text, blob))
            del self._data[:end]
        return found
