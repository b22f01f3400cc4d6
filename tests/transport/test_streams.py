"""Native tcp beyond the loopback device: TLS authenticates, sealed connections beside it carry."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport._joining import FIRST_BYTE, JOIN_BYTES, STREAMS
from tests.transport.support import KEY, WAIT, code_of, eventually

CANARY = secrets.token_bytes(64)


class Tap:
    """Forwards every connection to a listener, keeps what passed, and may change it.

    `tamper(connection, sent_by_dialler, offset, data)`; connections count from 0, which is the
    one with TLS.
    """

    def __init__(
        self, endpoint: str, tamper: Callable[[int, bool, int, bytes], bytes] | None = None
    ) -> None:
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._tamper = tamper
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.passed: defaultdict[tuple[int, bool], bytearray] = defaultdict(bytearray)
        self.accepted = 0
        self._ends: dict[socket.socket, tuple[socket.socket, int, bool]] = {}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="tap")
        self._thread.start()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        for sock in (*self._ends, self._listening, self._stopped):
            sock.close()

    def cut(self, connection: int) -> None:
        """End one connection, both ways."""
        for sock, (_, number, _) in list(self._ends.items()):
            if number == connection:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while True:
            watched = [*self._ends, self._listening, self._stopped]
            for sock in select.select(watched, [], [], WAIT)[0]:
                if sock is self._stopped:
                    return
                if sock is self._listening:
                    self._accept()
                elif sock in self._ends and not self._forward(sock, *self._ends[sock]):
                    self._end(sock)

    def _accept(self) -> None:
        near, _ = self._listening.accept()
        far = socket.create_connection(self._target)
        self._ends[near] = (far, self.accepted, True)
        self._ends[far] = (near, self.accepted, False)
        self.accepted += 1

    def _forward(
        self, source: socket.socket, sink: socket.socket, number: int, by_dialler: bool
    ) -> bool:
        try:
            data = source.recv(1 << 16)
            kept = self.passed[number, by_dialler]
            if self._tamper is not None:
                data = self._tamper(number, by_dialler, len(kept), data)
            kept += data
            sink.sendall(data)
        except OSError:
            return False
        return bool(data)

    def _end(self, sock: socket.socket) -> None:
        for one in (sock, self._ends[sock][0]):
            if self._ends.pop(one, None) is not None:
                one.close()


def moved(a: TransferManager, b: TransferManager, data: bytes) -> bytes:
    """What arrives of `data`."""
    there = bytearray(len(data))
    dst = b.register(there)
    assert a.post(a.register(data), dst).result(WAIT) == len(data)
    b.deregister(dst)
    return bytes(there)


def test_payload_is_striped_over_sealed_connections(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    data = CANARY * (1 << 17)  # 8 MiB
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        Tap(listener.endpoint) as tap,
    ):
        with connect(tap.endpoint, "s", KEY, tls=client_tls) as client:
            for manager in (client, daemon):
                found = manager.capabilities()
                assert (found.path, found.verification) == ("tcp", "aes-128-gcm")
                assert found.encrypted
                assert found.remote
            assert moved(client, daemon, data) == data
            assert moved(daemon, client, data) == data
        assert tap.accepted == 1 + STREAMS
        carried = [len(tap.passed[number, True]) for number in range(1, 1 + STREAMS)]
        assert all(size > 1 << 19 for size in carried)
        assert all(CANARY not in bytes(passed) for passed in tap.passed.values())


def test_a_recorded_join_opens_nothing(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        Tap(listener.endpoint) as tap,
        connect(tap.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        for number in range(1, 1 + STREAMS):
            recorded = bytes(tap.passed[number, True][:JOIN_BYTES])
            assert recorded.startswith(FIRST_BYTE)
            assert turned_away(listener.endpoint, recorded)
        assert moved(client, daemon, CANARY) == CANARY


def turned_away(endpoint: str, opening: bytes) -> bool:
    """Whether a connection that opens so is closed without a word."""
    address = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
    with socket.create_connection(address, timeout=WAIT) as stranger:
        stranger.sendall(opening)
        try:
            return stranger.recv(1) == b""
        except ConnectionError:
            return True


def test_forged_joins_do_not_take_a_streams_place(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """While the handshake waits for its streams an attacker sees the first JOIN and tries."""
    tried: list[bool] = []

    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):

        def forge(number: int, by_dialler: bool, offset: int, data: bytes) -> bytes:
            if number == 2 and by_dialler and offset == 0 and not tried:
                seen = bytes(tap.passed[1, True][:JOIN_BYTES])
                for stream in range(256):
                    forged = bytearray(seen)
                    forged[4] = stream
                    tried.append(turned_away(listener.endpoint, bytes(forged)))
                for place in range(JOIN_BYTES):
                    forged = bytearray(seen)
                    forged[place] ^= 1 << place % 8
                    # Another first byte is the beginning of a TLS that fails.
                    tried.append(turned_away(listener.endpoint, bytes(forged)))
            return data

        with (
            Tap(listener.endpoint, forge) as tap,
            connect(tap.endpoint, "s", KEY, tls=client_tls, timeout=WAIT) as client,
        ):
            assert len(tried) == 256 + JOIN_BYTES
            assert all(tried)
            assert moved(client, daemon, CANARY) == CANARY


@pytest.mark.parametrize("number", [1, STREAMS])
def test_a_flipped_bit_ends_the_session_and_delivers_nothing(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, number: int
) -> None:
    where = JOIN_BYTES + 100_000
    flipped = threading.Event()

    def flip(connection: int, by_dialler: bool, offset: int, data: bytes) -> bytes:
        if connection == number and by_dialler and offset <= where < offset + len(data):
            flipped.set()
            changed = bytearray(data)
            changed[where - offset] ^= 16
            return bytes(changed)
        return data

    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        Tap(listener.endpoint, flip) as tap,
        connect(tap.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        data = os.urandom(4 << 20)
        there = bytearray(len(data))
        future = client.post(client.register(data), daemon.register(there))
        assert code_of(future) in ("GEN0610", "GEN0630", "GEN0631")
        assert flipped.is_set()
        assert future.progress() < 1.0


@pytest.mark.parametrize("number", [1, STREAMS])
def test_a_cut_stream_is_a_lost_connection(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, number: int
) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        Tap(listener.endpoint) as tap,
        connect(tap.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        arrival = daemon.arrival(daemon.register(bytearray(1)))
        other = client.arrival(client.register(bytearray(1)))
        tap.cut(number)
        assert code_of(arrival) == code_of(other) == "GEN0610"


def test_a_busy_session_says_so(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        with pytest.raises(GenieError, match="GEN0608"):
            connect(listener.endpoint, "s", KEY, tls=client_tls)
        assert moved(client, daemon, CANARY) == CANARY


def test_a_dialler_whose_streams_never_come_holds_nothing_up(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genie_transport import _dial

    held: list[Any] = []

    def half(sock: socket.socket, *_: object) -> list[socket.socket]:
        held.append(sock)
        raise ConnectionAbortedError("this dialler stops before its streams")

    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY, limits=Limits()) as daemon,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(_dial, "_join", half)
            with pytest.raises(ConnectionAbortedError):
                connect(listener.endpoint, "s", KEY, tls=client_tls)
        assert held
        assert not daemon.wait_connected(0)
        with connect(listener.endpoint, "s", KEY, tls=client_tls) as client:
            assert moved(client, daemon, CANARY) == CANARY
        eventually(lambda: daemon.failure is not None, "the daemon hears of the end")
