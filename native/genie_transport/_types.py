"""The small values that cross the transport seam."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from genie_transport._errors import setup_error
from genie_transport._handle import DMAHandle

__all__ = [
    "MAX_CHUNK",
    "MAX_WINDOW",
    "MIN_CHUNK",
    "Arrived",
    "Capabilities",
    "Completed",
    "Connected",
    "Counters",
    "Event",
    "Expired",
    "Failed",
    "Limits",
    "Lost",
    "Priority",
    "Progressed",
    "Region",
    "Stats",
    "Transfer",
]

MIN_CHUNK = 4 << 10
MAX_CHUNK = 4 << 20
MAX_WINDOW = 1 << 30


class Priority(IntEnum):
    """Class of a transfer. Lower goes first, strictly; within a class chunks take turns."""

    DECODE = 0
    PREFILL = 1
    WEIGHTS = 2
    BULK = 3


@dataclass(frozen=True)
class Limits:
    """Bounds of one manager. Raises GenieError GEN0602 when one is out of range.

    `chunk_bytes` is the largest payload of a frame (4 KiB to 4 MiB): how long a transfer of a
    higher class waits behind a lower one. `window_bytes` bounds the bytes that the peer may have
    in flight towards this side. `queue` bounds outstanding posts and, apart, waiting arrivals.
    After `stall_timeout` seconds without a byte from the peer it counts as gone; keepalives are
    sent four times as often.
    """

    chunk_bytes: int = 1 << 20
    window_bytes: int = 8 << 20
    queue: int = 16384
    stall_timeout: float = 30.0

    def __post_init__(self) -> None:
        checks = {
            "chunk_bytes": (MIN_CHUNK <= self.chunk_bytes <= MAX_CHUNK, "4 KiB to 4 MiB"),
            "window_bytes": (
                2 * self.chunk_bytes <= self.window_bytes <= MAX_WINDOW,
                "two chunks to 1 GiB",
            ),
            "queue": (1 <= self.queue <= 1 << 20, "1 to 1048576"),
            "stall_timeout": (0.1 <= self.stall_timeout <= 3600.0, "0.1 to 3600 seconds"),
        }
        for name, (ok, bounds) in checks.items():
            if not ok:
                value = getattr(self, name)
                raise setup_error("GEN0602", f"{name} = {value} is not {bounds}", at=name)


@dataclass(frozen=True)
class Capabilities:
    """What a path can do. Sizes in bytes.

    `verification` says what stands behind "verified": "blake3" for a keyed tag on every frame,
    "memory" for memory that only this process reaches.
    """

    path: str
    remote: bool
    devices: tuple[str, ...]
    max_transfer: int
    chunk_bytes: int
    window_bytes: int
    verification: str
    encrypted: bool


@dataclass
class Counters:
    """What a transport counted since it was opened.

    Byte totals include framing but no TLS records. `in_flight` is payload sent
    and not yet acknowledged; `peak_in_flight` its maximum. `switches` counts moves to another path.
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    sends: int = 0
    switches: int = 0


@dataclass(frozen=True)
class Stats:
    """A manager's totals. Bytes include framing; `sends` counts system calls that sent.

    `transfers` were posted; of these `completed`, `failed` (deadlines included) and `cancelled`
    have ended and `outstanding` have not. `arrivals` were received whole and verified. `switches`
    counts how often the session moved to another path, because it lost the one before.
    """

    bytes_sent: int
    bytes_received: int
    sends: int
    in_flight: int
    peak_in_flight: int
    transfers: int
    completed: int
    failed: int
    cancelled: int
    outstanding: int
    arrivals: int
    switches: int = 0


@dataclass(slots=True, eq=False)
class Region:
    """Registered memory: `view` (flat bytes) stays valid as long as `owner` is referenced.

    `address` is where the bytes stand; native transports fill it in.
    """

    handle: DMAHandle
    view: memoryview
    writable: bool
    owner: object
    address: int = 0


@dataclass(slots=True, eq=False)
class Transfer:
    """One post on its way to a transport: dst.length bytes from `start` in `region`. Not changed.

    Not a frozen dataclass: those take a microsecond to make, and one is made for every post.
    """

    op_id: int
    region: Region
    start: int
    dst: DMAHandle
    priority: Priority

    @property
    def source(self) -> memoryview:
        """The bytes to move, as flat memory."""
        return self.region.view[self.start : self.start + self.dst.length]


@dataclass(frozen=True)
class Connected:
    """The peer is there (paths that wait for one)."""


@dataclass(frozen=True)
class Progressed:
    """The receiver has verified `verified` bytes of a posted transfer."""

    op_id: int
    verified: int


@dataclass(frozen=True)
class Completed:
    """The receiver has verified all of a posted transfer."""

    op_id: int


@dataclass(frozen=True)
class Failed:
    """A posted transfer failed; the connection goes on."""

    op_id: int
    code: str
    message: str


@dataclass(frozen=True)
class Arrived:
    """Transfers that cover the whole region of `key` were received and verified."""

    key: bytes
    times: int = 1


@dataclass(frozen=True)
class Expired:
    """The alarm has rung."""


@dataclass(frozen=True)
class Lost:
    """The transport has ended and released everything; always its last event."""

    code: str
    message: str
    context: dict[str, Any]


Event = Connected | Progressed | Completed | Failed | Arrived | Expired | Lost
