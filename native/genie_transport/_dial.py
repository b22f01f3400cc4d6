"""The dialling side: connect to a listener and prove the session."""

from __future__ import annotations

import dataclasses
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from genie_schemas.errors import GenieError, Place
from genie_transport._endpoint import Endpoint, check_tls, parse_endpoint, resolve
from genie_transport._errors import setup_error
from genie_transport._failover import FailoverTransport
from genie_transport._handshake import Accepted, DialHandshake, check_key, check_session_id
from genie_transport._joining import JOINED, joins, stream_keys
from genie_transport._manager import TransferManager
from genie_transport._native import NativeTransport
from genie_transport._ports import PortNotes
from genie_transport._sockets import SocketTransport
from genie_transport._stream import PlainStream, Stream, TlsStream
from genie_transport._threaded import ThreadedTransport
from genie_transport._transport import Transport
from genie_transport._types import Limits
from genie_transport._wires import Accepts, Decision, Wire, acceptable, decide, path_of

if TYPE_CHECKING:
    from genie_transport._fabric import Fabric

__all__ = ["connect", "transport_over", "tune"]

_log = logging.getLogger("genie_transport")
_PORT_STALL = 5.0  # seconds without a datagram after which a session moves off its port


def connect(
    endpoint: str,
    session_id: str,
    key: bytes,
    *,
    path: str | None = None,
    tls: ssl.SSLContext | None = None,
    encrypt: bool = False,
    trusted: bool = False,
    timeout: float = 10.0,
    limits: Limits | None = None,
    epoch: int = 1,
    fabrics: Sequence[Fabric] = (),
    decided: Callable[[Decision], None] = lambda decision: None,
) -> TransferManager:
    """Dial a Listener that expects `session_id` with `key`; blocks up to `timeout` seconds.

    `path` is "shm" or "unix" at unix:// endpoints, "tcp" at tcp:// endpoints, and "dpdk" at both,
    over one of `fabrics`; without it the best one that both sides have is taken, but never "ucx",
    which may be named at both too: shared memory at the former, and at the latter, if `trusted`
    declares the network trusted with all on it, whatever UCX finds. The choice and the reasons
    are logged and given to `decided`, again when the session moves to another path. `encrypt` has
    frames of tcp and ucx sealed with AES-128-GCM even on the loopback device, and datagrams
    even in a trusted fabric. Raises GenieError: GEN0602 (malformed), GEN0603 (TLS missing or too
    weak), GEN0604 (unreachable), GEN0605 (out of memory or descriptors), GEN0606 (session or
    certificate refused), GEN0607 (version), GEN0608 (busy), GEN0609 (the path is not built, or
    the peer does not take it), GEN0650 (no port is open), GEN0651 (the port does not reach it),
    GEN0665 (UCX is not there), GEN0666 (the network is not trusted), GEN0667 (UCX cannot start).
    """
    check_session_id(session_id)
    check_key(key)
    where = parse_endpoint(endpoint)
    limits = limits or Limits()
    ports = PortNotes(fabrics, encrypt=encrypt)
    accepts = acceptable(
        where.kind, path, tls=tls is not None, encrypt=encrypt, ports=ports.any, trusted=trusted
    )
    notes = {Wire.DPDK: ports.offer()} if accepts.wires & Wire.DPDK else {}
    handshake = DialHandshake(session_id, key, limits, accepts.wires, notes)
    deadline = time.monotonic() + timeout
    sock = _open(where, tls, deadline)
    try:
        sock = _secure(sock, where, tls, deadline)
        accepted = _prove(sock, where, handshake, deadline)
        if accepted.wire is Wire.DPDK:
            ports.settle(accepted.note)
        streams = _join(sock, where, accepted, deadline) if accepted.wire is Wire.TCP_TLS else []
    except BaseException:
        sock.close()
        raise
    choice = settled(where, session_id, accepts, accepted)
    decided(choice)
    moved = moving(choice, decided)
    try:
        transport = transport_over(sock, where, accepted, limits, ports, moved, streams=streams)
    except BaseException:
        for each in (sock, *streams):
            each.close()
        raise
    manager = TransferManager(transport, limits, epoch=epoch)
    if isinstance(transport, FailoverTransport):
        transport.settle()
        if path is not None and (failure := manager.failure) is not None:
            manager.close()
            raise setup_error(
                "GEN0651", "the port does not reach the peer", at=path, cause=failure.message
            )
    return manager


def settled(where: Endpoint, session_id: str, accepts: Accepts, accepted: Accepted) -> Decision:
    """What a handshake settled, in words and in the log."""
    name = session_id[:8]
    return decide(str(where), where.kind, name, accepts, accepted.wire, accepted.fallback)


def moving(choice: Decision, decided: Callable[[Decision], None]) -> Callable[[str], None]:
    """What to call with the reason when the session moves to its fallback."""

    def moved(reason: str) -> None:
        wire = Wire[choice.fallback]
        path = path_of(wire, choice.endpoint.partition("://")[0])
        reasons = {**choice.reasons, choice.path: reason}
        decided(
            dataclasses.replace(
                choice, path=path, wire=choice.fallback, fallback="", reasons=reasons
            )
        )

    return moved


def transport_over(
    sock: socket.socket,
    where: Endpoint,
    accepted: Accepted,
    limits: Limits,
    ports: PortNotes | None = None,
    moved: Callable[[str], None] = lambda reason: None,
    ready: Callable[[Transport], None] = lambda transport: None,
    streams: Sequence[socket.socket] = (),
) -> Transport:
    """The transport that the peers agreed on, over `sock`, which belongs to it from here on.

    So do `streams`, the connections beside a TLS connection, which `sock` is then closed for.
    `ready` gets the transport before the peer can reach it.
    """
    if accepted.wire is Wire.DPDK and ports is not None:
        return _beside(sock, where, accepted, limits, ports, moved, ready)
    if accepted.wire is not Wire.STREAM:
        native = NativeTransport(accepted.wire, limits)
        ready(native)
        if accepted.wire is Wire.TCP_TLS:
            sock.close()
            keys = [stream_keys(accepted.keys, number) for number in range(len(streams))]
            native.attach_streams(streams, keys, accepted.terms)
            return native
        native.attach(sock, accepted.keys, accepted.terms, greeting=accepted.welcome)
        return native
    tls = isinstance(sock, ssl.SSLSocket)
    stream: Stream = TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else PlainStream(sock)
    reference = SocketTransport(where.kind, limits, encrypted=tls)
    threaded = ThreadedTransport(reference)
    ready(threaded)
    reference.attach(stream, accepted.keys, accepted.terms, greeting=accepted.welcome)
    return threaded


def _beside(
    sock: socket.socket,
    where: Endpoint,
    accepted: Accepted,
    limits: Limits,
    ports: PortNotes,
    moved: Callable[[str], None],
    ready: Callable[[Transport], None],
) -> Transport:
    """A session over a port, with `sock` beside it, and its successor over `sock`."""
    beneath = dataclasses.replace(
        accepted, wire=accepted.fallback, keys=accepted.fallback_keys, welcome=b""
    )
    impatient = dataclasses.replace(limits, stall_timeout=min(limits.stall_timeout, _PORT_STALL))
    try:
        first = ports.transport(accepted, impatient)
    except BaseException:
        sock.close()
        raise

    def follow(line: socket.socket, prepare: Callable[[Transport], None]) -> Transport:
        return transport_over(line, where, beneath, limits, ready=prepare)

    return FailoverTransport(
        first,
        sock,
        accepted.control,
        greeting=accepted.welcome,
        patience=limits.stall_timeout,
        succeed=follow if accepted.fallback else None,
        moved=moved,
        ready=ready,
    )


def tune(sock: socket.socket) -> None:
    """Small frames go at once, and a dead TCP peer is noticed although nothing is sent."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _open(where: Endpoint, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
    if where.kind == "unix":
        if tls is not None:
            raise setup_error("GEN0602", "TLS is for tcp endpoints", at=str(where))
        return _dial(where, socket.AF_UNIX, where.path, deadline)
    addresses = resolve(where)
    check_tls(where, addresses, tls)
    for number, (family, address) in enumerate(addresses, 1):
        try:
            return _dial(where, family, address, deadline)
        except Exception:
            if number == len(addresses):
                raise
    raise setup_error("GEN0604", "the host has no IP address", at=str(where))


def _dial(
    where: Endpoint, family: int, address: str | tuple[object, ...], deadline: float
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(where, deadline))
        sock.connect(address)
        tune(sock)
    except OSError as error:
        sock.close()
        raise _unreachable(where, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _secure(
    sock: socket.socket, where: Endpoint, tls: ssl.SSLContext | None, deadline: float
) -> socket.socket:
    if tls is None:
        return sock
    sock.settimeout(_left(where, deadline))
    try:
        return tls.wrap_socket(sock, server_hostname=where.host)
    except ssl.SSLError as error:
        raise setup_error(
            "GEN0606", "TLS with the peer failed", at=str(where), cause=error.reason or str(error)
        ) from error
    except OSError as error:
        raise _unreachable(where, error) from error


def _prove(
    sock: socket.socket, where: Endpoint, handshake: DialHandshake, deadline: float
) -> Accepted:
    try:
        sock.settimeout(_left(where, deadline))
        sock.sendall(handshake.start())
        while (accepted := handshake.accepted) is None:
            sock.settimeout(_left(where, deadline))
            data = sock.recv(handshake.wanted())
            if not data:
                raise setup_error(
                    "GEN0606", "the peer ended the connection during the handshake", at=str(where)
                )
            # An empty send would fail already when the peer has said no and gone.
            if reply := handshake.received(data):
                sock.sendall(reply)
    except GenieError as error:
        error.place = Place(path=str(where))
        raise
    except ssl.SSLError as error:
        # With TLS 1.3 a refused client certificate shows at the first read.
        raise setup_error(
            "GEN0606", "TLS with the peer failed", at=str(where), cause=error.reason or str(error)
        ) from error
    except OSError as error:
        raise _unreachable(where, error) from error
    return accepted


def _join(
    sock: socket.socket, where: Endpoint, accepted: Accepted, deadline: float
) -> list[socket.socket]:
    """The session's connections beside `sock`, once the listener has said that it has them."""
    streams: list[socket.socket] = []
    try:
        address = sock.getpeername()  # the one that TLS has authenticated, whatever the name says
        for opening in joins(accepted):
            streams.append(_dial(where, sock.family, address, deadline))
            streams[-1].sendall(opening)
        answer = b""
        while len(answer) < len(JOINED):
            sock.settimeout(_left(where, deadline))
            data = sock.recv(len(JOINED) - len(answer))
            if not data:
                break
            answer += data
        if answer != JOINED:
            raise setup_error(
                "GEN0606", "the peer did not take the session's connections", at=str(where)
            )
    except BaseException as error:
        for stream in streams:
            stream.close()
        if isinstance(error, OSError):
            raise _unreachable(where, error) from error
        raise
    return streams


def _left(where: Endpoint, deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _unreachable(where, TimeoutError("timed out"))
    return left


def _unreachable(where: Endpoint, error: OSError) -> Exception:
    return setup_error(
        "GEN0604",
        "the peer cannot be reached",
        at=str(where),
        cause=error.strerror or str(error),
    )
