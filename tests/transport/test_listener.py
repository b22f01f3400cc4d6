"""Listening and dialling: endpoints, sessions, proofs, strangers."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import CODES, GenieError
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport._handshake import DialHandshake, HandshakeRefused, ListenHandshake
from genie_transport._wires import Wire
from genie_transport.testing import pair
from tests.transport.support import KEY, WAIT, code_of, eventually


@pytest.fixture(params=["unix", "tcp"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    endpoint = f"unix://{tmp_path}/l.sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    with Listener.open(endpoint) as opened:
        yield opened


def refused(action: Callable[[], Any]) -> GenieError:
    with pytest.raises(GenieError) as caught:
        action()
    return caught.value


# -- sessions ----------------------------------------------------------------------------------


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


# -- strangers ---------------------------------------------------------------------------------


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


# -- endpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "http://127.0.0.1:1",
        "unix://relative.sock",
        "unix:///" + "x" * 200,
        "unix:///a\0b",
        "tcp://127.0.0.1",
        "tcp://:9000",
        "tcp://::1:9000",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:٣",
    ],
)
def test_malformed_endpoints(snapshot: SnapshotAssertion, endpoint: str) -> None:
    error = refused(lambda: Listener.open(endpoint))
    assert str(refused(lambda: connect(endpoint, "s", KEY))) == str(error) == snapshot
    assert error.exit_code == 2


ELSEWHERE = ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "192.0.2.1", "10.1.2.3"]  # noqa: S104


@pytest.mark.parametrize("host", ELSEWHERE)
def test_beyond_this_machine_needs_tls(snapshot: SnapshotAssertion, host: str) -> None:
    error = refused(lambda: Listener.open(f"tcp://{host}:0"))
    assert error.exit_code == 6
    assert str(error) == snapshot
    assert refused(lambda: connect(f"tcp://{host}:9", "s", KEY)).code == "GEN0603"


def test_ipv6_loopback() -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").read_text().strip():
        pytest.skip("no IPv6 on this machine")
    with Listener.open("tcp://[::1]:0") as listener, listener.expect("s", KEY) as daemon:
        assert listener.endpoint.startswith("tcp://[::1]:")
        with connect(listener.endpoint, "s", KEY):
            assert daemon.wait_connected(WAIT)


def test_unresolvable_host() -> None:
    assert refused(lambda: Listener.open("tcp://no-such-host.invalid:1")).code == "GEN0604"
    assert refused(lambda: connect(f"tcp://{'x' * 300}:1", "s", KEY)).code == "GEN0604"


def test_occupied_port() -> None:
    with Listener.open("tcp://127.0.0.1:0") as first:
        error = refused(lambda: Listener.open(first.endpoint))
        assert error.code == "GEN0605"
        assert "in use" in str(error)


def test_unix_sockets_are_private(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    before = os.umask(0)
    try:
        with Listener.open(f"unix://{path}"):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


def test_unix_paths_that_are_taken(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = tmp_path / "p.sock"
    with Listener.open(f"unix://{path}") as first:
        error = refused(lambda: Listener.open(f"unix://{path}"))
        assert str(error).replace(str(tmp_path), "") == snapshot
        with first.expect("s", KEY) as daemon, connect(first.endpoint, "s", KEY):
            assert daemon.wait_connected(WAIT)
    path.write_text("precious")
    error = refused(lambda: Listener.open(f"unix://{path}"))
    assert str(error).replace(str(tmp_path), "") == snapshot
    assert path.read_text() == "precious"
    error = refused(lambda: Listener.open(f"unix://{tmp_path}/missing/p.sock"))
    assert error.code == "GEN0605"


def test_left_over_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with (
        Listener.open(f"unix://{path}") as listener,
        listener.expect("s", KEY) as daemon,
        connect(listener.endpoint, "s", KEY),
    ):
        assert daemon.wait_connected(WAIT)


def test_closing_leaves_the_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    first = Listener.open(f"unix://{path}")
    path.rename(tmp_path / "moved.sock")
    with Listener.open(f"unix://{path}"):
        first.close()
        assert path.exists()


def test_unreachable(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    error = refused(lambda: connect(f"unix://{tmp_path}/nobody.sock", "s", KEY))
    assert error.exit_code == 5
    assert str(error).replace(str(tmp_path), "") == snapshot
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        assert refused(lambda: connect(endpoint, "s", KEY)).exit_code == 5


@pytest.mark.root
def test_other_users_cannot_dial(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"genie-private-{os.getpid()}"
    folder.mkdir()
    try:
        with Listener.open(f"unix://{folder}/p.sock"):
            code = (
                "import os, socket, sys\n"
                "os.setuid(65534)\n"
                "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
                "except PermissionError: print('refused')\n"
            )
            done = subprocess.run(
                [sys.executable, "-I", "-c", code, f"{folder}/p.sock"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert done.stdout.strip() == "refused"
    finally:
        folder.rmdir()


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("session_id", ["", "x" * 129, "a b", "ü", "a\n", "../x", 5])
def test_bad_session_ids(listener: Listener, session_id: Any) -> None:
    assert refused(lambda: listener.expect(session_id, KEY)).code == "GEN0602"
    assert refused(lambda: connect(listener.endpoint, session_id, KEY)).code == "GEN0602"


@pytest.mark.parametrize("key", [b"", b"secret-too-short", bytes(65), "0" * 32])
def test_bad_keys(listener: Listener, key: Any) -> None:
    if key == b"secret-too-short":
        key = key[:15]
    for action in (
        lambda: listener.expect("s", key),
        lambda: connect(listener.endpoint, "s", key),
    ):
        error = refused(action)
        assert error.code == "GEN0602"
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_bytes": 100},
        {"chunk_bytes": 8 << 20},
        {"window_bytes": 1 << 20},
        {"window_bytes": 2 << 30},
        {"queue": 0},
        {"stall_timeout": 0.0},
        {"stall_timeout": float("nan")},
    ],
)
def test_limits_have_bounds(options: dict[str, Any]) -> None:
    assert refused(lambda: Limits(**options)).code == "GEN0602"


def test_open_by_path(listener: Listener, snapshot: SnapshotAssertion) -> None:
    path = listener.endpoint.partition(":")[0]
    options: dict[str, Any] = {"endpoint": listener.endpoint, "session_id": "s", "key": KEY}
    with (
        listener.expect("s", KEY) as daemon,
        TransferManager.open(path, **options, timeout=WAIT) as client,
    ):
        assert client.capabilities().path == daemon.capabilities().path == path
    found = {
        "nothing given": refused(lambda: TransferManager.open("tcp")),
        "other path": refused(
            lambda: TransferManager.open("tcp", endpoint="unix:///x", session_id="s", key=KEY)
        ),
        "loopback": refused(lambda: TransferManager.open("loopback", session_id="s")),
        "typo": refused(lambda: TransferManager.open("tpc")),
        "unknown": refused(lambda: pair("carrier-pigeon")),
    }
    assert {name: str(error) for name, error in found.items()} == snapshot


def test_loopback_alone_is_its_own_peer() -> None:
    with TransferManager.open("loopback") as manager:
        buffer = bytearray(3)
        dst = manager.register(buffer)
        arrival = manager.arrival(dst)
        assert manager.post(manager.register(b"abc"), dst).result(WAIT) == 3
        assert arrival.result(WAIT) == 3
        assert buffer == b"abc"


def test_every_code_is_explained() -> None:
    ours = {code: info for code, info in CODES.items() if code.startswith("GEN06")}
    assert len(ours) > 20
    assert all(len(info.text) > 80 for info in ours.values())
    source = Path(connect.__code__.co_filename).parent
    used = {c for f in source.glob("*.py") for c in re.findall(r"GEN06\d\d", f.read_text())}
    assert used - {"GEN0600"} == set(ours) - {"GEN0600"}
