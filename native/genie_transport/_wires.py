"""Which ways of framing two peers have in common, and which of them they take.

    STREAM    frames of the Python reference over any stream: keyed BLAKE3, no native code
    SHM       rings in shared memory, passed over a Unix socket
    TCP       native frames with CRC32C: for loopback, where nobody else can reach the connection
    TCP_AEAD  the same frames under AES-128-GCM
    UCX       messages of the same frames over UCX, with CRC32C; only where it was named
    UCX_AEAD  the same under AES-128-GCM

The dialler offers what it accepts, the listener takes the best that it accepts too. A path that
the user named is the only one that is offered: it is never silently replaced.
"""

from __future__ import annotations

import functools
import logging
from enum import IntFlag
from types import ModuleType

from genie_transport._errors import setup_error

__all__ = ["Wire", "acceptable", "best", "core", "native_paths"]

_log = logging.getLogger("genie_transport")


class Wire(IntFlag):
    """A set of ways of framing; bits of the handshake."""

    STREAM = 1
    SHM = 2
    TCP = 4
    TCP_AEAD = 8
    UCX = 32
    UCX_AEAD = 64


_ORDER = (Wire.SHM, Wire.TCP, Wire.TCP_AEAD, Wire.UCX, Wire.UCX_AEAD, Wire.STREAM)
_NATIVE = {"shm": Wire.SHM, "tcp": Wire.TCP | Wire.TCP_AEAD}


@functools.cache
def core() -> tuple[ModuleType | None, str]:
    """The native module, or None and why it cannot be used."""
    try:
        from genie_transport import _core
    except ImportError as error:
        return None, str(error)
    return _core, ""


def native_paths() -> tuple[str, ...]:
    """The native paths of this build."""
    return tuple(_NATIVE) if core()[0] is not None else ()


def acceptable(
    kind: str, path: str | None, *, tls: bool, encrypt: bool, trusted: bool = False
) -> Wire:
    """What this side accepts at an endpoint of `kind` ("unix" or "tcp").

    `path` is what the user named: "shm", "unix", "tcp" or "ucx"; None leaves the choice to the
    peers. `trusted` declares the network trusted, with all on it. Raises GenieError: GEN0602
    (path and endpoint do not fit), GEN0609 (named and not there), GEN0665, GEN0666 (ucx).
    """
    fits = {"unix": ("unix", "shm", "ucx"), "tcp": ("tcp", "ucx")}[kind]
    if path is not None and path not in fits:
        raise setup_error("GEN0602", f"the {path} path has no {kind}:// endpoints", at=path)
    if path == "unix":
        return Wire.STREAM
    if path == "ucx":
        from genie_transport._ucx_path import wires

        return wires(kind, encrypt=encrypt, trusted=trusted)
    module, why = core()
    if tls:
        # The session's own TLS carries the reference frames.
        return Wire.STREAM
    if module is None:
        if path is not None:
            raise setup_error("GEN0609", f"the {path} path is not built here", at=path, cause=why)
        _log.info("%s: reference transport, because the native one is missing: %s", kind, why)
        return Wire.STREAM
    if kind == "unix":
        return Wire.SHM if path is not None else Wire.SHM | Wire.STREAM
    native = Wire.TCP_AEAD if encrypt else Wire.TCP | Wire.TCP_AEAD
    return native if path is not None or encrypt else native | Wire.STREAM


def best(offered: Wire, accepted: Wire) -> Wire | None:
    """The best wire of both sets; None when they have none in common."""
    common = offered & accepted
    return next((wire for wire in _ORDER if wire & common), None)
