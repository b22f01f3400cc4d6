"""Mutual TLS: required beyond this machine, and it carries transfers."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path

import pytest

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, _wires, connect
from tests.transport.certificates import CLIENT, SERVER, Authority, context
from tests.transport.support import KEY, WAIT, code_of, eventually


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers of which one has no native code: the reference frames go inside TLS."""
    monkeypatch.setattr(_wires, "core", lambda: (None, "left out by the test"))


@pytest.mark.usefixtures("without_native")
def test_transfers_inside_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    size = 24 * (1 << 20) + 17
    data = os.urandom(1 << 20) * 24 + b"seventeen bytes!!"
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        assert client.capabilities().encrypted
        assert daemon.capabilities().encrypted
        there, back = bytearray(size), bytearray(size)
        out = client.post(client.register(data), daemon.register(there))
        into = client.register(back)
        home = daemon.post(daemon.register(data), into)
        assert out.result(WAIT) == home.result(WAIT) == size
        assert there == back == data
        for _ in range(50):
            src, dst = client.register(b"x" * 64), daemon.register(bytearray(64))
            assert client.post(src, dst).result(WAIT) == 64


def test_any_address_may_be_opened_with_tls(server_tls: ssl.SSLContext) -> None:
    with Listener.open("tcp://0.0.0.0:0", server_tls) as listener:
        assert not listener.endpoint.endswith(":0")


def test_a_client_without_a_certificate_is_refused(
    authority: Authority, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    anonymous = context(CLIENT, authority, None)
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        with pytest.raises(GenieError) as caught:
            connect(listener.endpoint, "s", KEY, tls=anonymous)
        assert caught.value.code in ("GEN0606", "GEN0604")  # an alert, or a reset behind it
        assert not daemon.wait_connected(0)
        with connect(listener.endpoint, "s", KEY, tls=client_tls):
            assert daemon.wait_connected(WAIT)


def test_strangers_certificates_are_refused(
    tmp_path: Path, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    mixed = context(CLIENT, authority, other.issue("client"))
    distrusting = context(CLIENT, other, authority.issue("client"))
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        for tls in (mixed, distrusting):
            with pytest.raises(GenieError) as caught:
                connect(listener.endpoint, "s", KEY, tls=tls)
            assert caught.value.code in ("GEN0606", "GEN0604")
        assert not daemon.wait_connected(0)


def test_tls_alone_does_not_open_a_session(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError, match="GEN0606"),
    ):
        connect(listener.endpoint, "s", bytes(32), tls=client_tls)


def test_plain_dialler_at_a_tls_listener(server_tls: ssl.SSLContext) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError) as caught,
    ):
        connect(listener.endpoint, "s", KEY, timeout=WAIT)
    assert caught.value.code in ("GEN0604", "GEN0606")


def test_tls_dialler_at_a_plain_listener(client_tls: ssl.SSLContext) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0") as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError) as caught,
    ):
        connect(listener.endpoint, "s", KEY, tls=client_tls, timeout=WAIT)
    assert caught.value.code in ("GEN0604", "GEN0606")


def test_weak_contexts_are_refused(
    authority: Authority, tmp_path: Path, client_tls: ssl.SSLContext
) -> None:
    own = authority.issue("server")
    old = context(SERVER, authority, own, strict=False)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    lax = context(SERVER, authority, own)
    lax.verify_mode = ssl.CERT_NONE
    for weak in (old, lax):
        with pytest.raises(GenieError, match="GEN0603"):
            Listener.open("tcp://127.0.0.1:0", weak)
        with pytest.raises(GenieError, match="GEN0603"):
            connect("tcp://127.0.0.1:9", "s", KEY, tls=weak)
    with pytest.raises(GenieError, match="GEN0602"):
        Listener.open(f"unix://{tmp_path}/x.sock", client_tls)
    with pytest.raises(GenieError, match="GEN0602"):
        connect(f"unix://{tmp_path}/x.sock", "s", KEY, tls=client_tls)


@pytest.mark.usefixtures("without_native")
def test_a_slow_reader_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Partial TLS writes are taken up again where they stopped."""
    limits = Limits(window_bytes=64 << 20)
    release = threading.Event()
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY, limits=limits) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls, limits=limits) as client,
    ):
        ticket = daemon.arrival(daemon.register(bytearray(1)), deadline=0.001)
        ticket.add_done_callback(lambda _: release.wait(WAIT) and None)
        data = os.urandom(1 << 20) * 32
        buffer = bytearray(len(data))
        future = client.post(client.register(data), daemon.register(buffer))
        stats = client.stats
        eventually(lambda: stats().in_flight > 0, "it has begun")
        release.set()
        assert future.result(WAIT) == len(data)
        assert buffer == data


@pytest.mark.usefixtures("without_native")
def test_cut_in_the_middle_of_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A TLS stream that ends without its farewell is a lost connection."""
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        arrival = daemon.arrival(daemon.register(bytearray(1)))
        client = connect(listener.endpoint, "s", KEY, tls=client_tls)
        assert daemon.wait_connected(WAIT)
        stream = client._transport._polled._stream  # type: ignore[attr-defined]
        with socket.socket(fileno=os.dup(stream.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)
        assert code_of(arrival) == "GEN0610"
        client.close()
