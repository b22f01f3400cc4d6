"""Listening sockets: private Unix sockets, and TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
from dataclasses import dataclass, replace

from genie_schemas.errors import GenieError
from genie_transport._endpoint import Endpoint, check_tls, resolve
from genie_transport._errors import setup_error

__all__ = ["Bound", "bind"]

_BACKLOG = 128


@dataclass(frozen=True)
class Bound:
    """A listening socket, in non-blocking mode, and where it really listens."""

    sock: socket.socket
    endpoint: Endpoint
    inode: int = 0

    def close(self) -> None:
        """Close, and remove the file of a Unix socket if it is still this one's."""
        self.sock.close()
        if self.endpoint.kind == "unix":
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(self.endpoint.path).st_ino == self.inode:
                    os.unlink(self.endpoint.path)


def bind(endpoint: Endpoint, tls: ssl.SSLContext | None) -> Bound:
    """Listen at `endpoint`. Raises GenieError as Listener.open documents."""
    if endpoint.kind == "unix":
        if tls is not None:
            raise setup_error("GEN0602", "TLS is for tcp endpoints", at=str(endpoint))
        return _bind_unix(endpoint)
    addresses = resolve(endpoint)
    check_tls(endpoint, addresses, tls)
    if not addresses:
        raise setup_error("GEN0604", "the host has no IP address", at=str(endpoint))
    family, address = addresses[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _failed(endpoint, error) from error
    return Bound(sock, replace(endpoint, port=sock.getsockname()[1]))


def _bind_unix(endpoint: Endpoint) -> Bound:
    path = endpoint.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(endpoint)
        # Linux gives the file the mode of the socket, so it is private from the start. A umask
        # would do the same, but it is the whole process's and other threads create files too.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        found = os.lstat(path)
        # Nobody can connect before listen(), so this check comes in time.
        if stat.S_IMODE(found.st_mode) & 0o177:
            os.unlink(path)
            raise setup_error("GEN0605", "the socket cannot be made private", at=str(endpoint))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _failed(endpoint, error) from error
    except BaseException:
        sock.close()
        raise
    return Bound(sock, endpoint, found.st_ino)


def _clear_stale(endpoint: Endpoint) -> None:
    """Remove the socket file of a process that has died; refuse anything else of that name."""
    try:
        mode = os.lstat(endpoint.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise setup_error("GEN0605", "the path exists and is not a socket", at=str(endpoint))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(endpoint.path)
        except ConnectionRefusedError:
            os.unlink(endpoint.path)
            return
        except BlockingIOError:
            pass  # its backlog is full: it lives
    raise setup_error("GEN0605", "another process listens there", at=str(endpoint))


def _failed(endpoint: Endpoint, error: OSError) -> GenieError:
    cause = error.strerror or str(error)
    return setup_error("GEN0605", "cannot listen", at=str(endpoint), cause=cause)
