"""What is UCX's own: whether it is there, what it may run on, and what its control line carries."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import CODES, GenieError
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport._handshake import TrafficKeys
from genie_transport._link import PeerTerms
from genie_transport._native import NativeTransport
from genie_transport._ucx_path import built, found
from genie_transport._wires import Wire, acceptable
from genie_transport.testing import pair
from tests.transport.peer import LIMITS
from tests.transport.support import KEY, LOOPBACK, WAIT, Proxy, code_of, eventually
from tests.transport.test_faults import child
from tests.transport.test_tls import CLIENT, SERVER, Authority, context

pytestmark = pytest.mark.skipif(not built(), reason="this build of Genie has no UCX")


def refused(action: Callable[[], Any]) -> GenieError:
    with pytest.raises(GenieError) as caught:
        action()
    assert caught.value.code in CODES
    return caught.value


# -- whether it may be taken -------------------------------------------------------------------


def test_without_the_module_it_is_said_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setitem(sys.modules, "genie_transport._ucx", None)
    found.cache_clear()
    try:
        assert str(refused(lambda: pair("ucx"))) == snapshot
    finally:
        found.cache_clear()


def test_a_network_must_be_declared_trusted(snapshot: SnapshotAssertion) -> None:
    with Listener.open(LOOPBACK) as listener:
        error = refused(lambda: listener.expect("s", KEY, path="ucx"))
        dialled = refused(lambda: connect(listener.endpoint, "s", KEY, path="ucx"))
    assert str(error) == str(dialled) == snapshot


def test_ucx_without_a_transport_is_an_error(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setenv("UCX_TLS", "no_such_transport")
    limits = Limits()
    terms = PeerTerms(limits.window_bytes, limits.chunk_bytes, limits.stall_timeout)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        transport = NativeTransport(Wire.UCX, limits)
        keys = TrafficKeys(KEY, KEY[::-1])
        assert str(refused(lambda: transport.attach(near, keys, terms))) == snapshot


def test_it_is_never_taken_unless_it_was_named() -> None:
    for kind in ("unix", "tcp"):
        for path in (None, "shm" if kind == "unix" else "tcp"):
            taken = acceptable(kind, path, tls=False, encrypt=False, ports=False, trusted=True)
            assert not taken.wires & (Wire.UCX | Wire.UCX_AEAD)


def test_a_process_that_does_not_ask_for_it_loads_none_of_it() -> None:
    text = (
        "from genie_transport.testing import pair\n"
        "a, b = pair('shm')\n"
        "print('libucp' in open('/proc/self/maps').read())\n"
        "a.close(), b.close()\n"
        "a, b = pair('ucx')\n"
        "print('libucp' in open('/proc/self/maps').read())\n"
        "a.close(), b.close()\n"
    )
    child = subprocess.run(
        [sys.executable, "-P", "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    # And UCX, whose log goes to stdout, has said nothing.
    assert (child.stdout, child.stderr) == ("False\nTrue\n", "")


# -- how frames are protected ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ucx", "ucx-tcp"])
def test_encrypted(path: str) -> None:
    a, b = pair(path, encrypt=True)
    with a, b:
        assert a.capabilities().encrypted
        assert b.capabilities().verification == "aes-128-gcm"
        data = bytes(range(256)) * 4096
        buffer = bytearray(len(data))
        assert a.post(a.register(data), b.register(buffer)).result(WAIT) == len(data)
        assert buffer == data


@pytest.mark.parametrize("encrypt", [False, True])
def test_beside_a_tls_connection(
    tmp_path: Path, encrypt: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond this machine sessions begin inside mutual TLS; then UCX carries the bytes."""
    authority = Authority(tmp_path, "authority")
    server_tls: ssl.SSLContext = context(SERVER, authority, authority.issue("server"))
    client_tls: ssl.SSLContext = context(CLIENT, authority, authority.issue("client"))
    options: dict[str, Any] = {"path": "ucx", "trusted": True, "encrypt": encrypt}
    with (
        Listener.open(LOOPBACK, server_tls) as listener,
        listener.expect("s", KEY, **options) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls, **options) as client,
    ):
        data = bytes(range(256)) * 8192
        there, back = bytearray(len(data)), bytearray(len(data))
        assert client.post(client.register(data), daemon.register(there)).result(WAIT) == len(data)
        assert daemon.post(daemon.register(data), client.register(back)).result(WAIT) == len(data)
        assert there == back == data
        assert client.capabilities().path == daemon.capabilities().path == "ucx"
        assert client.capabilities().encrypted == encrypt
    assert ("CRC32C alone" in caplog.text) == (not encrypt)


# -- the connection beside it ------------------------------------------------------------------

ANSWERS = 7 + 32 + 7 + 24 + 32  # the listener's challenge and welcome; then comes its address


@pytest.mark.parametrize("at", [0, 4, 40, -1])
def test_an_address_that_was_changed_on_the_way_is_not_used(tmp_path: Path, at: int) -> None:
    def flip(by_dialler: bool, offset: int, data: bytes) -> bytes:
        # Its size, its first and a later byte; and the last one, of its tag.
        position = ANSWERS + at - offset if at >= 0 else len(data) - 1
        if not by_dialler and offset + len(data) > ANSWERS and 0 <= position < len(data):
            return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        return data

    with Proxy(tmp_path, flip) as proxy, Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        accepted = listener.expect("s", KEY, path="ucx")
        dialled = connect(proxy(listener.endpoint), "s", KEY, path="ucx")
        with accepted, dialled:
            dst = accepted.register(bytearray(64))
            future = dialled.post(dialled.register(bytes(64)), dst, deadline=5.0)
            # With another size the tag is waited for in vain.
            assert code_of(future) in ("GEN0631", "GEN0613")
            assert accepted.stats().arrivals == 0


def test_the_end_of_the_connection_is_the_end_of_the_session(tmp_path: Path) -> None:
    with Proxy(tmp_path) as proxy, Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        accepted = listener.expect("s", KEY, path="ucx")
        dialled = connect(proxy(listener.endpoint), "s", KEY, path="ucx")
        with accepted, dialled:
            dst = accepted.register(bytearray(64))
            assert dialled.post(dialled.register(bytes(64)), dst).result(WAIT) == 64
            proxy.__exit__()
            for manager in (accepted, dialled):
                eventually(partial(ended, manager), "the end is noticed")
                assert manager.failure is not None
                assert manager.failure.code == "GEN0610"


def test_a_side_that_closes_before_it_has_read_the_address_still_acknowledges(
    tmp_path: Path,
) -> None:
    proxied = Proxy(tmp_path, late=(False, ANSWERS, 0.1))
    with proxied as proxy, Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        accepted = listener.expect("s", KEY, path="ucx")
        dialled = connect(proxy(listener.endpoint), "s", KEY, path="ucx")
        with accepted, dialled:
            dst = dialled.register(bytearray(1000))
            arrival = dialled.arrival(dst)
            future = accepted.post(accepted.register(bytes(1000)), dst)
            arrival.result(WAIT)
            dialled.close()
            assert future.result(WAIT) == 1000


# -- peers that take nothing -------------------------------------------------------------------


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_a_queue_that_nobody_empties_holds_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """UCX cannot close a connection through shared memory while the peer's queue is full.

    What had been announced to the peer then never ends either; the fixture `nothing_left` sees
    whether descriptors wait for it.
    """
    places = 64
    monkeypatch.setenv("UCX_POSIX_FIFO_SIZE", str(places))  # for the child too, whose queue it is
    with child(tmp_path, "ucx", "sink") as other:
        manager, process = other.manager, psutil.Process(other.process.pid)
        size = 2 * LIMITS.chunk_bytes
        long, short = manager.register(bytes(size)), manager.register(bytes(16))
        far_long, far_short = other.sink(size), other.sink(16)
        assert manager.post(short, far_short).result(WAIT) == 16  # UCX's own greetings are over
        process.suspend()
        eventually(lambda: process.status() == psutil.STATUS_STOPPED, "the peer has stopped")
        futures = [manager.post(long, far_long)]
        eventually(lambda: manager.stats().in_flight == size, "it is announced")
        for _ in range(places + 1):  # a message each
            before = manager.stats().sends
            futures.append(manager.post(short, far_short))
            eventually(partial(has_sent_more, manager, before), "it is with UCX")
        if end == "killed":
            process.kill()
        else:
            manager.close()
        expected = "GEN0610" if end == "killed" else "GEN0611"
        assert {code_of(future) for future in futures} == {expected}


def has_sent_more(manager: TransferManager, than: int) -> bool:
    return manager.stats().sends > than


def ended(manager: TransferManager) -> bool:
    return manager.failure is not None
