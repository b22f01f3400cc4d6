"""The relay passes bytes on as they are, counts them, and holds them back."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from genie.bench.semantics._wires import Wires

SECONDS = 20.0


@contextmanager
def echo() -> Iterator[int]:
    """The port of a server that sends everything back, for one connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(SECONDS)
            while piece := connection.recv(1 << 16):
                connection.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    thread.join(SECONDS)
    listening.close()
    assert not thread.is_alive()


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = connection.recv(1 << 16)
        assert piece
        found += piece
    return bytes(found)


def test_bytes_are_counted_on_their_link_and_held_back_both_ways() -> None:
    with Wires() as wires, echo() as port, echo() as other:
        client = socket.create_connection(("127.0.0.1", wires.open(port, "blind")), SECONDS)
        peer = socket.create_connection(
            ("127.0.0.1", wires.open(other, "blind", between=True)), SECONDS
        )
        with client, peer:
            before = wires.traffic("blind")
            client.sendall(b"x" * 1000)
            assert _exactly(client, 1000) == b"x" * 1000
            peer.sendall(b"y" * 10)
            assert _exactly(peer, 10) == b"y" * 10
            spent = wires.traffic("blind") - before
            assert (spent.sent, spent.received, spent.between) == (1000, 1000, 20)
            assert spent.total == 2020
            wires.round_trip(80)
            begun = time.monotonic()
            client.sendall(b"z")
            assert _exactly(client, 1) == b"z"
            # A delay is a lower bound: nothing here says how fast the machine is.
            assert time.monotonic() - begun >= 0.08


@pytest.mark.parametrize("milliseconds", [0, 20])
def test_order_and_content_survive(milliseconds: float) -> None:
    data = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(50_000))
    with Wires() as wires, echo() as port:
        wires.round_trip(milliseconds)
        with socket.create_connection(("127.0.0.1", wires.open(port, "blind")), SECONDS) as client:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            first = _exactly(client, len(data) // 2)
            wires.round_trip(0)  # what is on its way stays in front of what comes now
            found = first + _exactly(client, len(data) - len(first))
            sender.join(SECONDS)
    assert found == data


def test_an_end_is_passed_on() -> None:
    with Wires() as wires, echo() as port:
        wires.round_trip(20)
        with socket.create_connection(("127.0.0.1", wires.open(port, "blind")), SECONDS) as client:
            client.sendall(b"last")
            client.shutdown(socket.SHUT_WR)
            assert _exactly(client, 4) == b"last"
            assert client.recv(1) == b""
