"""A remote-operator server in a thread of the test, and plain connections to it."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genie.bench.semantics import _messages as wire
from genie.bench.semantics._remote import Remote
from genie.bench.semantics._server import Server, listen

SECONDS = 20.0


@contextmanager
def served() -> Iterator[tuple[int, bytes]]:
    """(port, key) of a server for one connection."""
    key = secrets.token_bytes(wire.KEY_BYTES)
    listening = listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, Server(connection) as server, torch.inference_mode():
            connection.settimeout(SECONDS)
            if server.admit(key):
                server.run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], key
    finally:
        thread.join(SECONDS)
        listening.close()
        assert not thread.is_alive()


@contextmanager
def remote() -> Iterator[Remote]:
    with served() as (port, key), Remote(port, key) as found:
        yield found


@contextmanager
def plain() -> Iterator[socket.socket]:
    """A connection that has proved the key and may say anything."""
    with (
        served() as (port, key),
        socket.create_connection(("127.0.0.1", port), SECONDS) as connection,
    ):
        connection.sendall(wire.MAGIC + key)
        yield connection
