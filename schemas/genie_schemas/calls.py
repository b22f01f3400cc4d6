"""Invocations on the data plane: what one request and one reply look like, byte for byte.

A call channel binds an installed plan, an entry point and the sizes of its dimensions. A request
is one message, the *head*: a fixed record and behind it the small inputs, each at a multiple of 64
bytes. Large inputs go apart, each from where it lies into its own region, so that nothing is
copied for their sake. Replies are laid out alike. Both sides compute the layout from the plan, so
no message says where anything lies, and there is nothing in one that could point elsewhere.

All numbers are little-endian. Times are microseconds, relative: the two sides share no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from genie_schemas import canonical
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages import RunReport, decode_errors, encode_error

__all__ = [
    "RECORD_BYTES",
    "Invocation",
    "Layout",
    "Reply",
    "Status",
    "layout",
]

ALIGNMENT: Final = 64
INLINE_VALUE: Final = 16 << 10
"""Bytes up to which a value travels in the head: copying costs less than another message."""

INLINE_TOTAL: Final = 64 << 10
ERROR_ROOM: Final = 3072
"""Bytes for an error that every reply's head has, whatever the outputs."""

MAX_RUN_ID: Final = 128
_MAX_US: Final = 30 * 86_400 * 1_000_000

_REQUEST = struct.Struct("<4sHHQQ16s128s")
_REPLY = struct.Struct("<4sHBBQII6Q")
_PEAK = struct.Struct("<Q")
RECORD_BYTES: Final = _REQUEST.size
"""Bytes of a request's fixed record."""

_REQUEST_MAGIC = b"GNcq"
_REPLY_MAGIC = b"GNcr"
_VERSION = 1
_LAST = 1


class Status(IntEnum):
    """How an invocation ended. UNADMITTED: nothing was begun, there is no room for it now."""

    DONE = 0
    FAILED = 1
    UNADMITTED = 2


@dataclass(frozen=True)
class Layout:
    """Where values lie in the heads (name → offset), and which travel apart (in this order)."""

    request_bytes: int
    inputs: Mapping[str, int]
    inputs_apart: tuple[str, ...]
    reply_bytes: int
    outputs: Mapping[str, int]
    outputs_apart: tuple[str, ...]


def layout(inputs: Mapping[str, int], outputs: Mapping[str, int], devices: int) -> Layout:
    """Lay out one node's part: (name → bytes) of inputs and outputs, and its plan devices."""
    inline, apart, end = _place(inputs, _REQUEST.size)
    back, back_apart, back_end = _place(outputs, _REPLY.size + devices * _PEAK.size)
    return Layout(end, inline, apart, max(back_end, _body(devices) + ERROR_ROOM), back, back_apart)


def _place(sizes: Mapping[str, int], head: int) -> tuple[dict[str, int], tuple[str, ...], int]:
    inline: dict[str, int] = {}
    apart: list[str] = []
    start = end = _align(head)
    for name in sorted(sizes):
        nbytes = sizes[name]
        if nbytes > INLINE_VALUE or end + nbytes - start > INLINE_TOTAL:
            apart.append(name)
        else:
            inline[name] = end
            end = _align(end + nbytes)
    return inline, tuple(apart), end


def _align(offset: int) -> int:
    return (offset + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@dataclass(frozen=True)
class Invocation:
    """The fixed record of a request.

    `channel` names the channel it is meant for, `sequence` counts its requests from 1, and
    `timeout_us` is how long the run may take from now on.
    """

    channel: bytes
    sequence: int
    timeout_us: int
    run_id: str

    def write(self, head: memoryview) -> None:
        """Put it at the start of a head."""
        name = self.run_id.encode("ascii")
        timeout = min(max(self.timeout_us, 0), _MAX_US)
        _REQUEST.pack_into(
            head, 0, _REQUEST_MAGIC, _VERSION, len(name), self.sequence, timeout, self.channel, name
        )

    @classmethod
    def read(cls, head: bytes | memoryview, channel: bytes, sequence: int) -> Invocation:
        """What came in. GEN0430 unless it is request `sequence` of this very channel."""
        magic, version, length, number, timeout, named, name = _REQUEST.unpack_from(head)
        if magic != _REQUEST_MAGIC or version != _VERSION:
            raise _unfit("it does not begin like a request of this version")
        if named != channel:
            raise _unfit("it is meant for another channel")
        if number != sequence:
            raise _unfit(f"it is request {number}; request {sequence} is next")
        run_id = name[:length]
        if not 0 < length <= MAX_RUN_ID or not _is_run_id(run_id) or timeout > _MAX_US:
            raise _unfit("its run id or its deadline is out of range")
        return cls(channel, number, timeout, run_id.decode("ascii"))


_FIRST = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_OTHERS = _FIRST | frozenset(b"._:-")


def _is_run_id(text: bytes) -> bool:
    return text[0] in _FIRST and _OTHERS.issuperset(text)


def _unfit(cause: str) -> GenieError:
    return GenieError(
        "GEN0430",
        "a request does not fit its call channel",
        cause=cause,
        remedy="open a new channel; nothing was executed",
    )


@dataclass(frozen=True)
class Reply:
    """The fixed record of a reply, and its error. `last`: the channel is closed behind it."""

    status: Status
    sequence: int
    report: RunReport | None = None
    error: GenieError | None = None
    last: bool = False

    def write(self, head: memoryview, devices: Sequence[str]) -> None:
        """Put it at the start of a head. `devices` are the node's plan devices, sorted.

        An error that is too long for the head is cut: its code and message come first.
        """
        body = b""
        if self.error is not None:
            body = _fit(self.error, len(head) - _body(len(devices)))
        report = self.report
        numbers = (0,) * 6
        peaks = [0] * len(devices)
        if report is not None:
            numbers = (
                report.attempts,
                report.total_us,
                report.compute_us,
                report.wait_us,
                report.transfer_us,
                report.steps,
            )
            # 0 stands for "none": a device that did not finish has no peak.
            peaks = [report.peak_bytes.get(device, 0) for device in devices]
        flags = _LAST if self.last else 0
        _REPLY.pack_into(
            head,
            0,
            _REPLY_MAGIC,
            _VERSION,
            int(self.status),
            flags,
            self.sequence,
            len(body),
            len(devices),
            *numbers,
        )
        struct.pack_into(f"<{len(peaks)}Q", head, _REPLY.size, *peaks)
        start = _body(len(devices))
        head[start : start + len(body)] = body

    @classmethod
    def read(cls, head: bytes | memoryview, devices: Sequence[str], sequence: int) -> Reply:
        """What came back. GEN0432 unless it answers request `sequence`."""
        magic, version, status, flags, number, length, count, *numbers = _REPLY.unpack_from(head)
        if magic != _REPLY_MAGIC or version != _VERSION or status > Status.UNADMITTED:
            raise _strange("it does not begin like a reply of this version")
        if number != sequence:
            raise _strange(f"it answers request {number}, not {sequence}")
        if count != len(devices) or length > len(head) - _body(count):
            raise _strange("its sizes do not fit the plan")
        last = bool(flags & _LAST)
        if status != Status.DONE:
            start = _body(count)
            error = _error(bytes(head[start : start + length]))
            return cls(Status(status), number, None, error, last)
        peaks = struct.unpack_from(f"<{count}Q", head, _REPLY.size)
        attempts, total, compute, wait, transfer, steps = numbers
        report = RunReport.model_construct(  # every field is an unsigned integer of 64 bits
            attempts=attempts,
            total_us=total,
            compute_us=compute,
            wait_us=wait,
            transfer_us=transfer,
            peak_bytes={device: peak for device, peak in zip(devices, peaks, strict=True) if peak},
            steps=steps,
        )
        return cls(Status.DONE, number, report, None, last)


def _body(devices: int) -> int:
    return _align(_REPLY.size + devices * _PEAK.size)


def _error(body: bytes) -> GenieError:
    try:
        data = canonical.loads(body.decode("utf-8"))
    except (canonical.StrictJsonError, UnicodeDecodeError):
        data = None
    return decode_errors(data.get("errors") if isinstance(data, dict) else None)


def _fit(error: GenieError, room: int) -> bytes:
    """The error as JSON within `room` bytes: the later errors, then details, are left out."""
    first = error.errors[0] if isinstance(error, GenieErrors) else error
    for candidate in (
        error,
        first,
        GenieError(first.code, first.message, first.place, first.cause, first.remedy),
        GenieError(first.code, _cut(first.message), None, _cut(first.cause), _cut(first.remedy)),
    ):
        body = encode_error(candidate)
        if len(body) <= room:
            return body
    return encode_error(GenieError(first.code, "the reason is too long to be reported here"))


def _cut(text: str | None) -> str:
    # Escaped, a character takes up to six bytes: three texts of 120 fit.
    return (text or "")[:120]


def _strange(cause: str) -> GenieError:
    return GenieError(
        "GEN0432",
        "a daemon's reply does not fit the request",
        cause=cause,
        remedy="run again; if it happens again, compare the versions of client and daemon",
    )
