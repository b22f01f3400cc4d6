"""Strangers at a listener: junk, silence, forged handshakes, and too many of them."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import socket
import threading
from functools import partial
from typing import Any, cast

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, connect
from genie_transport._handshake import DialHandshake, HandshakeRefused, ListenHandshake
from genie_transport._wires import Wire
from tests.transport.support import KEY, WAIT, eventually, refused


def dial_raw(listener: Listener) -> socket.socket:
    endpoint = listener.endpoint
    if endpoint.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX)
        address: Any = endpoint.removeprefix("unix://")
    else:
        sock = socket.socket()
        address = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
    sock.settimeout(WAIT)
    sock.connect(address)
    return sock


HELLO = b"GTH\x01\x01"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (bytes(64), b""),
        (HELLO + b"\xff\xff", b""),  # a size beyond any message
        (b"GTH\x02\x01\x00\x00", b"GTH\x01\x05\x00\x01\x02"),  # another version
        (b"GTH\x01\x03\x00\x00", b"GTH\x01\x05\x00\x01\x01"),  # a proof before anything else
        (HELLO + b"\x00\x00", b"GTH\x01\x05\x00\x01\x01"),  # an empty hello
        (HELLO + b"\x00\x3c" + bytes(60), b"GTH\x01\x05\x00\x01\x01"),  # impossible terms
    ],
)
def test_junk_is_turned_away(listener: Listener, sent: bytes, answer: bytes) -> None:
    with dial_raw(listener) as sock:
        sock.sendall(sent)
        got = b""
        try:
            while data := sock.recv(100):
                got += data
        except ConnectionResetError:
            pass  # it went without reading everything
        assert got == answer
    with listener.expect("s", KEY) as daemon, connect(listener.endpoint, "s", KEY):
        assert daemon.wait_connected(WAIT)


def test_silent_strangers_do_not_keep_others_out(listener: Listener) -> None:
    crowd = [dial_raw(listener) for _ in range(100)]
    with listener.expect("s", KEY) as daemon, connect(listener.endpoint, "s", KEY):
        assert daemon.wait_connected(WAIT)
    # The oldest had to go, or they waste their time: either way none is served.
    assert crowd[0].recv(1) == b""
    for sock in crowd:
        sock.close()


def test_slow_strangers_are_dropped(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie_transport._listener._PATIENCE", 0.05)
    with dial_raw(listener) as sock:
        sock.sendall(HELLO)
        assert sock.recv(1) == b""


def answering(answers: list[bytes]) -> tuple[str, threading.Thread]:
    """A server that is no Listener: it gives these answers, one for each thing it receives."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            server.settimeout(WAIT)
            conn, _ = server.accept()
            with conn:
                conn.settimeout(WAIT)
                for answer in answers:
                    if not conn.recv(1000):
                        return
                    conn.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"tcp://127.0.0.1:{server.getsockname()[1]}", thread


def test_terms_are_checked_even_of_a_peer_with_the_key() -> None:
    """A listener that holds the key still cannot make the dialler allocate what it likes."""

    class Boundless:
        window_bytes, chunk_bytes, stall_timeout = 1 << 40, 1 << 30, 30.0

    listening = ListenHandshake(lambda _: (KEY, cast("Limits", Boundless()), Wire.STREAM))
    dialling = DialHandshake("s", KEY, Limits())
    challenge = deliver(listening, dialling.start())
    assert deliver(listening, deliver(dialling, challenge)) == b""
    assert listening.accepted is not None
    with pytest.raises(GenieError, match="impossible terms"):
        deliver(dialling, listening.accepted.welcome)


def deliver(side: ListenHandshake | DialHandshake, data: bytes) -> bytes:
    """Deliver `data` in the pieces that `side` asks for; what it answers."""
    answer = b""
    while data:
        count = side.wanted()
        answer += side.received(data[:count])
        data = data[count:]
    return answer


@pytest.mark.parametrize("flip", range(3))
def test_any_change_to_the_handshake_is_noticed(flip: int) -> None:
    """A bit of hello, challenge or welcome: the proofs do not fit."""
    rng = random.Random(flip)

    def changed(message: bytes, index: int) -> bytes:
        if index != flip:
            return message
        at = rng.randrange(7, 7 + 32)  # in the nonce, or in terms and proof
        return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]

    for _ in range(50):
        listening = ListenHandshake(lambda _: (KEY, Limits(), Wire.STREAM))
        dialling = DialHandshake("s", KEY, Limits())
        with pytest.raises((GenieError, HandshakeRefused)):
            challenge = deliver(listening, changed(dialling.start(), 0))
            deliver(listening, deliver(dialling, changed(challenge, 1)))
            assert listening.accepted is not None
            deliver(dialling, changed(listening.accepted.welcome, 2))


def test_the_dialler_checks_its_peer_too(snapshot: SnapshotAssertion) -> None:
    challenge = b"GTH\x01\x02\x00\x20" + bytes(32)
    welcome = b"GTH\x01\x04\x00\x34" + bytes(52)
    cases = {
        "not ours": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        "newer": [b"GTH\x07\x05\x00\x01\x02"],
        "welcome without a challenge": [welcome],
        "short challenge": [challenge[:6] + b"\x1f" + bytes(31)],
        "no key": [challenge, welcome],
        "empty welcome": [challenge, welcome[:6] + b"\x00"],
        "goes away": [challenge],
        "says nothing": [],
    }
    found = {}
    for name, answers in cases.items():
        endpoint, thread = answering(answers)
        error = refused(partial(connect, endpoint, "s", KEY, timeout=WAIT))
        thread.join(WAIT)
        found[name] = re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", str(error)).splitlines()
        if name in ("goes away", "says nothing"):
            found[name] = [error.code]  # reset or end, as the system has it
    assert found["goes away"][0] in ("GEN0604", "GEN0606")
    assert found["says nothing"][0] in ("GEN0604", "GEN0606")
    del found["goes away"], found["says nothing"]
    assert found == snapshot


def test_running_out_of_descriptors_delays_peers_only(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unix = listener.endpoint.startswith("unix://")
    address: Any = listener.endpoint.removeprefix("unix://")
    if not unix:
        address = ("127.0.0.1", int(listener.endpoint.rpartition(":")[2]))
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
        sock.settimeout(WAIT)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            sock.connect(address)
            eventually(lambda: "cannot accept" in caplog.text, "there are none left")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.sendall(bytes(7))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""  # it was accepted, and turned away


def test_a_peer_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        error = refused(lambda: connect(endpoint, "s", KEY, timeout=0.1))
    assert error.code == "GEN0604"
    assert "timed out" in str(error)
    assert refused(lambda: connect(endpoint, "s", KEY, timeout=0)).code == "GEN0604"
