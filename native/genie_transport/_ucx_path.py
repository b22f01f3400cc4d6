"""The ucx path: whether it is there, and what it may run on.

At unix:// endpoints UCX moves bytes through shared memory that only processes of one user can
open. At tcp:// endpoints it uses the network, RDMA first. There UCX itself trusts whoever reaches
its ports: a stranger who does can have it write anywhere in this process, whatever the frames are
protected with. So both sides must declare the network, with all hosts and users on it, trusted.
UCX is never chosen when no path is named.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import socket
import ssl
from types import ModuleType

from genie_transport._errors import setup_error
from genie_transport._wires import Wire, core

__all__ = ["built", "found", "leave_tls", "wires"]

_PATIENCE = 1.0  # seconds; what is sent within them has room in the kernel

# Some can be given in the environment only, and are read when the libraries are loaded or when a
# worker starts. What the user has set is left alone.
_SETTINGS = {
    "UCX_HANDLE_ERRORS": "none",  # not the signals of crashes: Python handles them
    # It would patch mmap in the whole process, for a cache of registrations that is not needed:
    # what is moved has been registered once.
    "UCX_MEM_EVENTS": "no",
    "UCX_MEM_MMAP_HOOK_MODE": "none",
    "UCX_VFS_ENABLE": "n",  # no thread to show a file system
    "UCX_LOG_LEVEL": "fatal",  # it prints to stdout; what matters comes as a status
    "UCX_WARN_UNUSED_ENV_VARS": "n",
    "UCX_POSIX_ERROR_HANDLING": "y",  # the death of a peer is an error, not our own end
    "UCX_TCP_CONN_NB": "y",  # connecting waits for nobody
}


def built() -> bool:
    """Whether this build has the ucx path. Loads nothing."""
    return importlib.util.find_spec("genie_transport._ucx") is not None


@functools.cache
def found() -> tuple[ModuleType | None, str]:
    """The module that speaks UCX, loaded now; or None and why it cannot be used."""
    module, why = core()
    if module is None:
        return None, why
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("genie_transport._ucx"), ""
    except ModuleNotFoundError:
        return None, "Genie was built without UCX"
    except ImportError as error:
        return None, str(error)


def wires(kind: str, *, encrypt: bool, trusted: bool) -> Wire:
    """What this side accepts when the ucx path was named at an endpoint of `kind`.

    Raises GenieError GEN0665 (not built, or its libraries are missing) and GEN0666 (the network
    was not declared trusted).
    """
    module, why = found()
    if module is None:
        raise setup_error("GEN0665", "the ucx path is not there", at="ucx", cause=why)
    if kind != "unix" and not trusted:
        raise setup_error(
            "GEN0666", "UCX over a network needs that network declared trusted", at="ucx"
        )
    return Wire.UCX_AEAD if encrypt else Wire.UCX | Wire.UCX_AEAD


def leave_tls(sock: socket.socket, greeting: bytes) -> bytes:
    """Say `greeting` inside TLS, where there is any; returns what is left to be sent outside it.

    What follows on the connection are the sealed addresses of UCX's workers, under keys that only
    those have whom TLS has authenticated, and then nothing. Raises GenieError GEN0610 when the
    peer has gone.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return greeting
    sock.settimeout(_PATIENCE)
    try:
        sock.sendall(greeting)
    except OSError as error:
        cause = error.strerror or str(error)
        raise setup_error("GEN0610", "the peer has gone", at="ucx", cause=cause) from error
    sock.setblocking(False)
    return b""
