"""Listening and dialling: endpoints, sessions, proofs, strangers."""

from __future__ import annotations

import threading
import time

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_transport import Listener, TransferManager, connect
from genie_transport._late import LateTransport
from tests.transport.support import KEY, WAIT, code_of, eventually, refused


def test_posts_wait_for_the_peer(listener: Listener) -> None:
    with listener.expect("s-1", KEY) as daemon:
        assert not daemon.wait_connected(0.01)
        src = daemon.register(b"hello")
        given_up = daemon.post(src, daemon.register(bytearray(5)))
        assert given_up.cancel()
        late = daemon.post(src, daemon.register(bytearray(5)), deadline=0.02)
        assert code_of(late) == "GEN0613"
        withdrawn = daemon.register(bytearray(5))
        daemon.deregister(withdrawn)
        assert daemon.advance_epoch() == 2
        with connect(listener.endpoint, "s-1", KEY) as client:
            buffer = bytearray(5)
            dst = client.register(buffer)
            arrival = client.arrival(dst)
            assert daemon.post(src, dst).result(WAIT) == 5
            assert arrival.result(WAIT) == 5
            assert buffer == b"hello"
            assert daemon.wait_connected(WAIT)


def test_a_post_before_the_peer_is_sent_when_it_comes(listener: Listener) -> None:
    with listener.expect("s", KEY) as daemon:
        # The handle is not the client's, which shows that the post reached it.
        early = daemon.post(daemon.register(b"hello"), daemon.register(bytearray(5)))
        with connect(listener.endpoint, "s", KEY):
            assert code_of(early) == "GEN0623"


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_handle_may_be_used_as_soon_as_its_user_is_connected(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, encrypt: bool
) -> None:
    # A listener that is held up when its peer knows already that it may begin.
    begin = LateTransport.begin

    def slow(self: LateTransport) -> bool:
        time.sleep(0.2)
        return begin(self)

    monkeypatch.setattr(LateTransport, "begin", slow)
    there = bytearray(5)
    with listener.expect("s", KEY, encrypt=encrypt) as daemon:
        dst = daemon.register(there)
        early = daemon.post(daemon.register(b"early"), daemon.register(bytearray(5)))
        with connect(listener.endpoint, "s", KEY, encrypt=encrypt) as client:
            assert client.post(client.register(b"hello"), dst).result(WAIT) == 5
            assert there == b"hello"
            assert code_of(early) == "GEN0623"


def test_wrong_key_and_unknown_session_look_the_same(
    listener: Listener, snapshot: SnapshotAssertion
) -> None:
    with listener.expect("known", KEY) as daemon:
        wrong = refused(lambda: connect(listener.endpoint, "known", bytes(32)))
        unknown = refused(lambda: connect(listener.endpoint, "other", KEY))
        assert str(wrong) == str(unknown)
        assert str(wrong).replace(listener.endpoint, "ENDPOINT") == snapshot
        assert wrong.exit_code == 6
        with connect(listener.endpoint, "known", KEY):  # and the right one still gets in
            assert daemon.wait_connected(WAIT)


def test_one_peer_a_session(listener: Listener, snapshot: SnapshotAssertion) -> None:
    with listener.expect("s", KEY) as daemon:
        twice = refused(lambda: listener.expect("s", KEY))
        assert str(twice).replace(listener.endpoint, "ENDPOINT") == snapshot
        with connect(listener.endpoint, "s", KEY) as client:
            busy = refused(lambda: connect(listener.endpoint, "s", KEY))
            assert str(busy).replace(listener.endpoint, "ENDPOINT") == snapshot
            dst = daemon.register(bytearray(1))
            assert client.post(client.register(b"x"), dst).result(WAIT) == 1
        eventually(lambda: daemon.failure is not None, "the daemon has noticed")
    # Ended: the session may be expected anew, and what ended does not come back by itself.
    assert refused(lambda: connect(listener.endpoint, "s", KEY)).code == "GEN0606"
    with listener.expect("s", KEY) as daemon, connect(listener.endpoint, "s", KEY):
        assert daemon.wait_connected(WAIT)


def test_forgotten_sessions_are_refused(listener: Listener) -> None:
    waiting, joined = listener.expect("waiting", KEY), listener.expect("joined", KEY)
    with connect(listener.endpoint, "joined", KEY) as client:
        assert joined.wait_connected(WAIT)
        for name in ("waiting", "joined", "waiting", "never"):
            listener.forget(name)
        assert waiting.failure is not None
        assert waiting.failure.code == "GEN0611"
        assert refused(lambda: connect(listener.endpoint, "waiting", KEY)).code == "GEN0606"
        dst = joined.register(bytearray(1))
        assert client.post(client.register(b"x"), dst).result(WAIT) == 1
        joined.close()


def test_sessions_do_not_share_handles(listener: Listener) -> None:
    with (
        listener.expect("a", KEY) as a,
        listener.expect("b", KEY) as b,
        connect(listener.endpoint, "a", KEY) as client,
        connect(listener.endpoint, "b", KEY),
    ):
        src = client.register(b"x")
        theirs = b.register(bytearray(1))
        assert code_of(client.post(src, theirs)) == "GEN0623"
        assert client.post(src, a.register(bytearray(1))).result(WAIT) == 1


def test_closing_the_listener(listener: Listener) -> None:
    waiting, joined = listener.expect("w", KEY), listener.expect("j", KEY)
    with connect(listener.endpoint, "j", KEY) as client:
        assert joined.wait_connected(WAIT)
        endpoint = listener.endpoint
        listener.close()
        listener.close()
        assert waiting.failure is not None
        assert refused(lambda: listener.expect("x", KEY)).code == "GEN0605"
        assert refused(lambda: connect(endpoint, "j", KEY, timeout=2)).exit_code == 5
        dst = joined.register(bytearray(1))
        assert client.post(client.register(b"x"), dst).result(WAIT) == 1
        joined.close()


def test_many_sessions_at_once(listener: Listener) -> None:
    managers = [listener.expect(f"s{n}", KEY) for n in range(20)]
    clients: list[TransferManager] = []
    threads = [
        threading.Thread(target=lambda n=n: clients.append(connect(listener.endpoint, n, KEY)))
        for n in (f"s{n}" for n in range(20))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert all(manager.wait_connected(WAIT) for manager in managers)
    for manager in managers + clients:
        manager.close()
