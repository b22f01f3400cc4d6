"""The daemon's side: one listening socket, and the sessions that may dial it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError
from genie_transport._bind import Bound, bind
from genie_transport._dial import moving, settled, transport_over, tune
from genie_transport._endpoint import parse_endpoint
from genie_transport._errors import setup_error
from genie_transport._handshake import (
    Accepted,
    Expected,
    HandshakeRefused,
    ListenHandshake,
    check_key,
    check_session_id,
)
from genie_transport._joining import FIRST_BYTE, JOIN_BYTES, JOINED, Gathering, Tickets
from genie_transport._late import LateTransport
from genie_transport._manager import TransferManager
from genie_transport._ports import PortNotes
from genie_transport._types import Capabilities, Limits, Lost
from genie_transport._wires import Accepts, Decision, Wire, acceptable

if TYPE_CHECKING:
    from genie_transport._fabric import Fabric

__all__ = ["Listener"]

_log = logging.getLogger("genie_transport")
_MAX_PENDING = 64  # strangers in mid-handshake; the oldest goes when one more comes
_PATIENCE = 5.0  # seconds for a whole handshake
_PAUSE = 0.1  # seconds without accepting when descriptors have run out


@dataclass(frozen=True, repr=False)
class _Session:
    key: bytes
    limits: Limits
    accepts: Accepts
    transport: LateTransport
    manager: TransferManager
    ports: PortNotes
    decided: Callable[[Decision], None]


@dataclass(eq=False)
class _Stranger:
    """A connection that has not proved anything yet, or waits for its session's streams.

    Where there is TLS, a connection begins with it, or wants to be one of those streams (`joins`);
    None until its first byte has come.
    """

    sock: socket.socket
    handshake: ListenHandshake
    deadline: float
    tls_done: bool
    joins: bool | None
    opening: bytes = b""
    gathering: Gathering | None = None
    out: bytes = b""
    mask: int = field(default=select.POLLIN)


class Listener(Closing):
    """Accepts peers for expected sessions; one thread however many dial.

    Strangers cost bounded memory and time, and are told nothing about which sessions exist.
    """

    def __init__(self, bound: Bound, tls: ssl.SSLContext | None) -> None:
        """Use `open`. Starts the thread."""
        self._bound = bound
        self._tls = tls
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._strangers: dict[int, _Stranger] = {}
        self._tickets: Tickets[_Stranger] = Tickets()
        self._poll = select.poll()
        self._resume = 0.0
        self._closing = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake_fd, select.POLLIN)
        self._poll.register(bound.sock.fileno(), select.POLLIN)
        self._thread = threading.Thread(
            target=self._run, name="genie-transfer-listener", daemon=True
        )
        self._thread.start()

    @classmethod
    def open(cls, endpoint: str, tls: ssl.SSLContext | None = None) -> Listener:
        """Listen at `unix:///path` (mode 0600 from its first moment) or `tcp://host:port`.

        Raises GenieError: GEN0602 (malformed), GEN0603 (not loopback and no TLS, or TLS too
        weak), GEN0604 (the host does not resolve), GEN0605 (in use, or not allowed).
        """
        return cls(bind(parse_endpoint(endpoint), tls), tls)

    @property
    def endpoint(self) -> str:
        """Where peers dial, with the port that the system chose."""
        return str(self._bound.endpoint)

    def expect(
        self,
        session_id: str,
        key: bytes,
        *,
        path: str | None = None,
        encrypt: bool = False,
        trusted: bool = False,
        limits: Limits | None = None,
        epoch: int = 1,
        fabrics: Sequence[Fabric] = (),
        decided: Callable[[Decision], None] = lambda decision: None,
    ) -> TransferManager:
        """Let one peer with this session's key dial; the manager is connected once it has.

        Registering and posting are possible at once: posts wait for the peer, up to their
        deadline. `path`, `encrypt`, `trusted`, `fabrics` and `decided` are as for connect().
        Raises GenieError GEN0602 (malformed id or key), GEN0605 (closed), GEN0608 (expected
        already, and its manager is still open), GEN0609 and GEN0665 (the path is not built),
        GEN0650 (no port is open), GEN0666 (the network is not declared trusted).
        """
        check_session_id(session_id)
        check_key(key)
        limits = limits or Limits()
        kind = self._bound.endpoint.kind
        ports = PortNotes(fabrics, encrypt=encrypt)
        tls = self._tls is not None
        accepts = acceptable(kind, path, tls=tls, encrypt=encrypt, ports=ports.any, trusted=trusted)
        with self._lock:
            if self._closing:
                raise setup_error("GEN0605", "the listener is closed", at=self.endpoint)
            # Managers that have ended hold keys that nobody can use any more.
            ended = [name for name, s in self._sessions.items() if s.manager.failure is not None]
            for name in ended:
                del self._sessions[name]
            if session_id in self._sessions:
                raise setup_error(
                    "GEN0608", f"session {session_id} is expected already", at=self.endpoint
                )
            transport = LateTransport(_expected(kind, limits, encrypted=tls))
            manager = TransferManager(transport, limits, epoch=epoch)
            self._sessions[session_id] = _Session(
                key, limits, accepts, transport, manager, ports, decided
            )
            return manager

    def forget(self, session_id: str) -> None:
        """Refuse this session from now on; closes its manager if no peer has come. Idempotent."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None and not session.manager.wait_connected(0):
            session.manager.close()

    def close(self) -> None:
        """Stop listening and forget all sessions. Connected managers go on. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            names = list(self._sessions)
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)
        self._bound.close()
        for name in names:
            self.forget(name)

    # -- the listener's thread ---------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            for descriptor, _ in self._poll.poll(self._timeout()):
                if descriptor == self._bound.sock.fileno():
                    self._accept()
                elif (stranger := self._strangers.get(descriptor)) is not None:
                    self._proceed(stranger)
            now = time.monotonic()
            for stranger in [s for s in self._strangers.values() if s.deadline <= now]:
                self._drop(stranger, "too slow")
            if self._resume and self._resume <= now:
                self._resume = 0.0
                self._poll.register(self._bound.sock.fileno(), select.POLLIN)
        for stranger in list(self._strangers.values()):
            self._drop(stranger, "the listener closes")

    def _timeout(self) -> int | None:
        moments = [s.deadline for s in self._strangers.values()]
        moments += [self._resume] if self._resume else []
        if not moments:
            return None
        return int(max(0.0, min(moments) - time.monotonic()) * 1000 + 0.999)

    def _accept(self) -> None:
        try:
            sock, _ = self._bound.sock.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # out of descriptors: the connection waits in the backlog
            _log.warning("%s: cannot accept: %s", self.endpoint, error)
            self._poll.unregister(self._bound.sock.fileno())
            self._resume = time.monotonic() + _PAUSE
            return
        try:
            sock.setblocking(False)
            tune(sock)
        except OSError:  # gone already
            sock.close()
            return
        if len(self._strangers) >= _MAX_PENDING:
            self._drop(next(iter(self._strangers.values())), "too many at once")
        stranger = _Stranger(
            sock,
            ListenHandshake(self._find),
            time.monotonic() + _PATIENCE,
            tls_done=self._tls is None,
            joins=None if self._tls is not None else False,
        )
        self._strangers[sock.fileno()] = stranger
        self._poll.register(sock.fileno(), select.POLLIN)

    def _find(self, session_id: str) -> Expected | None:
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None or session.manager.failure is not None:
            return None
        return Expected(session.key, session.limits, session.accepts.wires, session.ports)

    def _proceed(self, stranger: _Stranger) -> None:
        """Go on with a handshake as far as it goes without waiting."""
        try:
            if stranger.joins is None:
                self._look(stranger)
            if stranger.joins:
                self._join(stranger)
                return
            if not stranger.tls_done and isinstance(stranger.sock, ssl.SSLSocket):
                stranger.sock.do_handshake()
                stranger.tls_done = True
            while True:
                if stranger.out:
                    stranger.out = stranger.out[stranger.sock.send(stranger.out) :]
                    continue
                data = stranger.sock.recv(stranger.handshake.wanted())
                if not data or stranger.gathering is not None:
                    self._drop(
                        stranger, "it said something out of turn" if data else "it went away"
                    )
                    return
                stranger.out = stranger.handshake.received(data)
                accepted = stranger.handshake.accepted
                if accepted is not None and self._admit(stranger, accepted):
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(stranger, select.POLLOUT if stranger.out else select.POLLIN)
        except ssl.SSLWantWriteError:
            self._watch(stranger, select.POLLOUT)
        except HandshakeRefused as refusal:
            self._refuse(stranger, str(refusal), refusal.reply)
        except OSError as error:
            self._drop(stranger, str(error))

    def _look(self, stranger: _Stranger) -> None:
        """See from the first byte what a connection begins with. Raises OSError."""
        first = stranger.sock.recv(1, socket.MSG_PEEK)
        stranger.joins = first == FIRST_BYTE
        if not stranger.joins and self._tls is not None:
            stranger.sock = self._tls.wrap_socket(
                stranger.sock, server_side=True, do_handshake_on_connect=False
            )

    def _join(self, stranger: _Stranger) -> None:
        """Take what a stream says of itself; the last one that was missing begins its session."""
        data = stranger.sock.recv(JOIN_BYTES - len(stranger.opening))
        stranger.opening += data
        if data and len(stranger.opening) < JOIN_BYTES:
            return
        dialler = self._tickets.take(stranger.opening, stranger.sock) if data else None
        if dialler is None or dialler.gathering is None:
            self._drop(stranger, "it belongs to no session")
            return
        self._release(stranger)
        if dialler.gathering.complete:
            self._admit(dialler, dialler.gathering.accepted)

    def _admit(self, stranger: _Stranger, accepted: Accepted) -> bool:
        """Begin the session of a peer that has proved itself. False: its streams come first."""
        handshake = stranger.handshake
        with self._lock:
            session = self._sessions.get(handshake.session_id)
        if session is None:  # forgotten while it was proving itself
            self._refuse(stranger, "the session was forgotten", handshake.unexpected())
            return True
        if session.transport.chosen is not None:
            self._refuse(stranger, "the session has a peer", handshake.busy())
            return True
        if accepted.wire is Wire.TCP_TLS and stranger.gathering is None:
            stranger.out = accepted.welcome
            stranger.gathering = Gathering(accepted)
            self._tickets.add(stranger.gathering, stranger)
            return False
        self._release(stranger)
        # This is the only thread that begins a transport: nobody can come in between.
        where, name = self._bound.endpoint, handshake.session_id
        choice = settled(where, name, session.accepts, accepted)
        moved = moving(choice, session.decided)
        streams: list[socket.socket] = []
        if stranger.gathering is not None:
            with contextlib.suppress(OSError):  # whether it is still there shows at its streams
                stranger.sock.send(JOINED)
            streams = stranger.gathering.hand_over()
        try:
            transport = transport_over(
                stranger.sock,
                where,
                accepted,
                session.limits,
                session.ports,
                moved,
                ready=session.transport.prepare,
                streams=streams,
            )
        except GenieError as error:
            _log.warning("%s: a peer cannot be served: %s", self.endpoint, error)
            session.transport.give_up()
            stranger.sock.close()
            for stream in streams:
                stream.close()
            return True
        session.decided(choice)
        if not session.transport.begin():
            transport.close()  # its manager was closed meanwhile
            while not any(isinstance(event, Lost) for event in transport.poll(None)):
                pass
        return True

    def _watch(self, stranger: _Stranger, mask: int) -> None:
        if stranger.mask != mask:
            stranger.mask = mask
            self._poll.modify(stranger.sock.fileno(), mask)

    def _refuse(self, stranger: _Stranger, why: str, reply: bytes) -> None:
        # Best effort: a stranger that does not take a few bytes need not hear why.
        with contextlib.suppress(OSError):
            stranger.sock.send(reply)
        self._drop(stranger, why)

    def _drop(self, stranger: _Stranger, why: str) -> None:
        _log.info("%s: a peer was turned away: %s", self.endpoint, why)
        self._release(stranger)
        stranger.sock.close()
        if stranger.gathering is not None:
            stranger.gathering.close()

    def _release(self, stranger: _Stranger) -> None:
        if self._strangers.pop(stranger.sock.fileno(), None) is not None:
            self._poll.unregister(stranger.sock.fileno())
        if stranger.gathering is not None:
            self._tickets.drop(stranger.gathering)


def _expected(kind: str, limits: Limits, *, encrypted: bool) -> Capabilities:
    """What can be said about a path before its peer is there."""
    return Capabilities(
        path=kind,
        remote=kind == "tcp",
        devices=("cpu",),
        max_transfer=(1 << 63) - 1,
        chunk_bytes=limits.chunk_bytes,
        window_bytes=limits.window_bytes,
        verification="",
        encrypted=encrypted,
    )
