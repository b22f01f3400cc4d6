"""Which ways of framing two peers have in common, and which of them they take.

    STREAM    frames of the Python reference over any stream: keyed BLAKE3, no native code
    SHM       rings in shared memory, passed over a Unix socket
    TCP       native frames with CRC32C: for loopback, where nobody else can reach the connection
    TCP_AEAD  the same frames under AES-128-GCM
    TCP_TLS   the same, on several connections beside the TLS connection that authenticated them
    DPDK      datagrams between two ports of DPDK; the connection stays beside them, for control
    UCX       messages of the same frames over UCX, with CRC32C; only where it was named
    UCX_AEAD  the same under AES-128-GCM

The dialler offers what it accepts, the listener takes the best that it accepts too. A path that
the user named is the only one that is offered: it is never silently replaced.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from types import ModuleType

from genie_transport._errors import setup_error

__all__ = [
    "BESIDE",
    "NO_WIRE",
    "Accepts",
    "Decision",
    "Wire",
    "acceptable",
    "best",
    "core",
    "decide",
    "fallback_of",
    "native_paths",
    "path_of",
]

_log = logging.getLogger("genie_transport")


class Wire(IntFlag):
    """A set of ways of framing; bits of the handshake."""

    STREAM = 1
    SHM = 2
    TCP = 4
    TCP_AEAD = 8
    DPDK = 16
    TCP_TLS = 32
    UCX = 64
    UCX_AEAD = 128


NO_WIRE = Wire(0)
_ORDER = (
    Wire.SHM,
    Wire.DPDK,
    Wire.TCP,
    Wire.TCP_AEAD,
    Wire.TCP_TLS,
    Wire.UCX,
    Wire.UCX_AEAD,
    Wire.STREAM,
)
_NATIVE = {"shm": Wire.SHM, "tcp": Wire.TCP | Wire.TCP_AEAD}
_FITS = {"unix": ("unix", "shm", "dpdk", "ucx"), "tcp": ("tcp", "dpdk", "ucx")}
BESIDE = Wire.DPDK
"""Wires that run beside the connection, which then carries control alone."""
# What such a session can go on with over the connection itself.
_OVER_THE_CONNECTION = Wire.TCP | Wire.TCP_AEAD | Wire.STREAM


@dataclass(frozen=True)
class Accepts:
    """The wires that one side accepts for one session; `missing` says why others are not there.

    `missing` maps paths ("shm", "dpdk", "tcp") to a reason.
    """

    wires: Wire
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What two sides settled on, for logs: the path, and why no better one was taken.

    `fallback` is the wire to which the session moves when the path is lost; "" for none.
    """

    endpoint: str
    session: str
    path: str
    wire: str
    fallback: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.endpoint}: {self.path} ({self.wire} frames"
        text += f", falls back to {self.fallback})" if self.fallback else ")"
        return "; ".join([text, *(f"not {path}: {why}" for path, why in self.reasons.items())])


@functools.cache
def core() -> tuple[ModuleType | None, str]:
    """The native module, or None and why it cannot be used."""
    try:
        from genie_transport import _core
    except ImportError as error:
        return None, str(error)
    return _core, ""


def native_paths() -> tuple[str, ...]:
    """The native paths of this build that need no port."""
    return tuple(_NATIVE) if core()[0] is not None else ()


def acceptable(
    kind: str,
    path: str | None,
    *,
    tls: bool,
    encrypt: bool,
    ports: bool,
    trusted: bool = False,
) -> Accepts:
    """What this side accepts at an endpoint of `kind` ("unix" or "tcp").

    `path` is what the user named: "shm", "unix", "tcp", "dpdk" or "ucx"; None leaves the choice
    to the peers. `ports` says whether this side has a DPDK port for the session, `trusted` that
    the network is declared trusted for UCX. Raises GenieError: GEN0602 (path and endpoint do not
    fit), GEN0609 (named and not built), GEN0650 (no port), GEN0665 and GEN0666 (ucx).
    """
    if path is not None and path not in _FITS[kind]:
        raise setup_error("GEN0602", f"the {path} path has no {kind}:// endpoints", at=path)
    if path == "dpdk":
        if not ports:
            raise setup_error("GEN0650", "the dpdk path was named, and no port is open", at=path)
        return Accepts(Wire.DPDK)
    if path == "unix":
        return Accepts(Wire.STREAM)
    if path == "ucx":
        from genie_transport._ucx_path import wires

        return Accepts(wires(kind, encrypt=encrypt, trusted=trusted))
    missing: dict[str, str] = {} if path is not None else _lacking(kind, ports)
    port = Wire.DPDK if ports and path is None else NO_WIRE
    module, why = core()
    if tls and module is not None:
        # Without native code on either side the session's own TLS carries the reference frames.
        return Accepts(port | Wire.TCP_TLS | Wire.STREAM, missing)
    if tls or module is None:
        if path is not None and not tls:
            raise setup_error("GEN0609", f"the {path} path is not built here", at=path, cause=why)
        _log.info("%s: reference transport, because the native one is missing: %s", kind, why)
        missing["shm" if kind == "unix" else "tcp"] = f"not built here: {why}"
        return Accepts(port | Wire.STREAM, missing)
    if kind == "unix":
        return Accepts(Wire.SHM if path is not None else Wire.SHM | port | Wire.STREAM, missing)
    native = Wire.TCP_AEAD if encrypt else Wire.TCP | Wire.TCP_AEAD
    if path is None:
        native |= port
    return Accepts(native if path is not None or encrypt else native | Wire.STREAM, missing)


def _lacking(kind: str, ports: bool) -> dict[str, str]:
    lacking = {}
    if kind != "unix":
        lacking["shm"] = "the peer is reached over TCP, and may be another machine"
    if not ports:
        lacking["dpdk"] = "no port is open here"
    return lacking


def best(offered: Wire, accepted: Wire) -> Wire | None:
    """The best wire of both sets; None when they have none in common."""
    common = offered & accepted
    return next((wire for wire in _ORDER if wire & common), None)


def fallback_of(wire: Wire, offered: Wire, accepted: Wire) -> Wire:
    """What a session on `wire` moves to over its connection when that is lost; NO_WIRE: nothing."""
    if not wire & BESIDE:
        return NO_WIRE
    return best(offered & _OVER_THE_CONNECTION, accepted) or NO_WIRE


def path_of(wire: Wire, kind: str) -> str:
    """The path that a wire is, at an endpoint of `kind`."""
    if wire is Wire.STREAM:
        return kind
    found = {Wire.SHM: "shm", Wire.DPDK: "dpdk", Wire.UCX: "ucx", Wire.UCX_AEAD: "ucx"}
    return found.get(wire, "tcp")


def decide(
    endpoint: str, kind: str, session: str, accepts: Accepts, wire: Wire, fallback: Wire
) -> Decision:
    """Put what was settled, and why nothing better was, into words. Logged by whoever asked."""
    reasons = {}
    for better in _ORDER[: _ORDER.index(wire)]:
        path = path_of(better, kind)
        if better & accepts.wires and path not in reasons:
            reasons[path] = "the peer does not take it"
        elif path in accepts.missing:
            reasons[path] = accepts.missing[path]
    name, beneath = wire.name or "", fallback.name if fallback else ""
    found = Decision(endpoint, session, path_of(wire, kind), name, beneath or "", reasons)
    _log.info("%s", found)
    return found
