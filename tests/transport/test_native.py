"""What only the native paths have: their frames, their choice, their memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport._wires import Wire, best, core
from genie_transport.testing import pair
from tests.transport.support import (
    KEY,
    LOOPBACK,
    SMALL,
    WAIT,
    Proxy,
    code_of,
    eventually,
    flipped,
    session,
    transfer_threads,
)

pytestmark = pytest.mark.skipif(core()[0] is None, reason=f"not built: {core()[1]}")

HELLO = 7 + 32 + 20 + 1 + 2 + 1 + 7 + 32  # hello for session "s", and proof
ANSWERS = 7 + 32 + 7 + 24 + 32  # challenge and welcome


@pytest.fixture(params=["clear", "sealed"])
def sealed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sealed")


# -- frames of the tcp path ----------------------------------------------------------------------


def exchange(folder: Path, proxy: Proxy, sealed: bool) -> tuple[str | None, str | None, bytes]:
    """Post 64 bytes through `proxy`: how post and arrival ended, and the buffer."""
    with session(folder, path="tcp", encrypt=sealed, through=proxy) as (dialled, accepted):
        buffer = bytearray(64)
        dst = accepted.register(buffer)
        arrival = accepted.arrival(dst, deadline=WAIT)
        future = dialled.post(dialled.register(b"\1" * 64), dst, deadline=WAIT)
        posted = code_of(future)
        if posted in ("GEN0630", "GEN0631"):
            arrival.cancel()
        return posted, code_of(arrival), bytes(buffer)


def frame(sealed: bool) -> int:
    """Bytes of the one frame of a small transfer: base, destination, trailer, payload, tag."""
    return 48 + 48 + 16 + 64 + (16 if sealed else 0)


def test_tcp_cut_at_every_byte(tmp_path: Path, sealed: bool) -> None:
    for offset in range(HELLO, HELLO + frame(sealed)):
        with Proxy(tmp_path, cut=(True, offset)) as proxy:
            posted, arrived, _ = exchange(tmp_path, proxy, sealed)
        assert (posted, arrived) == ("GEN0610", "GEN0610"), offset


def test_tcp_answer_cut_at_every_byte(tmp_path: Path, sealed: bool) -> None:
    for offset in range(ANSWERS, ANSWERS + 64):
        with Proxy(tmp_path, cut=(False, offset)) as proxy:
            posted, arrived, buffer = exchange(tmp_path, proxy, sealed)
        assert (posted, arrived, buffer) == ("GEN0610", None, b"\1" * 64), offset


def test_tcp_bit_flips_at_every_byte(tmp_path: Path, sealed: bool) -> None:
    outcomes: dict[tuple[str | None, str | None], int] = {}
    for position in range(HELLO, HELLO + frame(sealed)):
        with Proxy(tmp_path, partial(flipped, position)) as proxy:
            posted, arrived, _ = exchange(tmp_path, proxy, sealed)
        assert posted is not None, position
        assert arrived is not None, position
        outcomes[posted, arrived] = outcomes.get((posted, arrived), 0) + 1
    payload = 64 + (16 if sealed else 0)
    assert outcomes == {
        ("GEN0630", "GEN0612"): payload,
        ("GEN0610", "GEN0631"): frame(sealed) - payload,
    }


@pytest.mark.parametrize("kind", ["forged", "repeated"])
def test_tcp_injected_frames_end_the_connection(tmp_path: Path, kind: str) -> None:
    def inject(by_dialler: bool, offset: int, data: bytes) -> bytes:
        if by_dialler and offset >= HELLO:
            return data + (os.urandom(64) if kind == "forged" else data)
        return data

    with (
        Proxy(tmp_path, inject) as proxy,
        session(tmp_path, path="tcp", encrypt=True, through=proxy) as (a, b),
    ):
        dst = b.register(bytearray(64))
        arrival = b.arrival(dst)
        a.post(a.register(bytes(64)), dst)
        assert arrival.result(WAIT) == 64  # it came before the forgery, and is genuine
        eventually(lambda: b.failure is not None, "the forgery is noticed")
        assert b.failure is not None
        assert b.failure.code == "GEN0631"


def test_tcp_sealed_frames_hide_their_content(tmp_path: Path) -> None:
    seen = bytearray()

    def look(by_dialler: bool, offset: int, data: bytes) -> bytes:
        seen.extend(data)
        return data

    text = b"the secret of the tensors, and more than once; " * 3
    with (
        Proxy(tmp_path, look) as proxy,
        session(tmp_path, path="tcp", encrypt=True, through=proxy) as (a, b),
    ):
        dst = b.register(bytearray(len(text)))
        assert a.post(a.register(text), dst).result(WAIT) == len(text)
        assert b"secret" not in seen
        assert dst.key not in seen


def test_tcp_keys_move_on(tmp_path: Path) -> None:
    """More frames than one key may seal."""
    with session(tmp_path, path="tcp", encrypt=True) as (a, b):
        dst = b.register(bytearray(1 << 12))
        src = a.register(os.urandom(1 << 12))
        parts = [(src.part(i, 1), dst.part(i, 1)) for i in range(1 << 12)]
        for _ in range(17):
            for future in [a.post(*part) for part in parts]:
                future.result(WAIT)


def test_a_dripping_tcp_connection_is_slow_but_correct(tmp_path: Path, sealed: bool) -> None:
    limits = Limits(chunk_bytes=4096, window_bytes=8192)
    with (
        Proxy(tmp_path) as proxy,
        session(tmp_path, path="tcp", encrypt=sealed, limits=limits, through=proxy) as (a, b),
    ):
        data, buffer = os.urandom(100_000), bytearray(100_000)
        assert a.post(a.register(data), b.register(buffer)).result(WAIT) == len(data)
        assert buffer == data
        assert a.stats().peak_in_flight <= 8192


def test_cancelled_frames_are_completed_from_a_copy(sealed: bool) -> None:
    """What was announced must follow, although the source is the caller's again."""
    a, b = pair("tcp", encrypt=sealed)
    with a, b:
        size = 64 << 20
        for _ in range(10):
            source = bytearray(b"\1" * size)
            future = a.post(a.register(source), b.register(bytearray(size)))
            eventually(lambda f=future: f.progress() > 0, "it has begun")  # type: ignore[misc]
            future.cancel()
            source[:] = bytes(size)
        assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1


# -- shared memory -------------------------------------------------------------------------------


def test_arenas_are_read_in_place() -> None:
    module: Any = core()[0]
    a, b = pair("shm")
    with a, b:
        arena = module.Arena(8 << 20)
        view = arena.view
        view[:] = data = os.urandom(arena.nbytes)
        src, buffer = a.register(view), bytearray(arena.nbytes)
        dst = b.register(buffer)
        assert a._transport.share(arena)  # type: ignore[attr-defined]
        assert a.post(src, dst).result(WAIT) == len(data)
        assert buffer == data
        view[:] = bytes(arena.nbytes)
        assert a.post(src, dst).result(WAIT) == len(data)
        assert not any(buffer)


def test_strangers_on_the_socket_are_refused(tmp_path: Path) -> None:
    """A peer with the key that passes something else than sealed memory."""
    with Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        for descriptor in (os.open("/dev/zero", os.O_RDWR), os.memfd_create("unsealed"), -1):
            with listener.expect("s", KEY, path="shm") as daemon:
                sock = prove(listener.endpoint)
                with sock:
                    message = b"m" + bytes(8)
                    if descriptor < 0:
                        sock.sendall(message)
                    else:
                        socket.send_fds(sock, [message], [descriptor])
                        os.close(descriptor)
                    eventually(lambda d=daemon: d.failure is not None, "refused")  # type: ignore[misc]
                assert daemon.failure is not None
                assert daemon.failure.code == "GEN0631"


def prove(endpoint: str) -> socket.socket:
    """A connection after the handshake, without what follows it."""
    from genie_transport._handshake import DialHandshake

    sock = socket.socket(socket.AF_UNIX)
    sock.connect(endpoint.removeprefix("unix://"))
    handshake = DialHandshake("s", KEY, Limits(), Wire.SHM)
    sock.sendall(handshake.start())
    while handshake.accepted is None:
        if reply := handshake.received(sock.recv(handshake.wanted())):
            sock.sendall(reply)
    return sock


# -- the choice ----------------------------------------------------------------------------------


def test_the_best_common_wire() -> None:
    every = Wire.STREAM | Wire.SHM | Wire.TCP | Wire.TCP_AEAD
    assert best(every, Wire.SHM | Wire.STREAM) is Wire.SHM
    assert best(every, Wire.TCP | Wire.TCP_AEAD) is Wire.TCP
    assert best(Wire.TCP_AEAD | Wire.STREAM, Wire.TCP | Wire.TCP_AEAD) is Wire.TCP_AEAD
    assert best(Wire.STREAM, every) is Wire.STREAM
    assert best(Wire.SHM, Wire.STREAM) is None


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("who", ["dialler", "listener"])
def test_falls_back_when_one_side_is_not_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    who: str,
) -> None:
    def without() -> None:
        monkeypatch.setattr("genie_transport._wires.core", lambda: (None, "no compiler"))

    where = f"unix://{tmp_path}/l.sock" if kind == "unix" else LOOPBACK
    with Listener.open(where) as listener, caplog.at_level(logging.INFO, "genie_transport"):
        if who == "listener":
            without()
        manager = listener.expect("s", KEY)
        monkeypatch.undo()
        if who == "dialler":
            without()
            with pytest.raises(GenieError, match="GEN0609"):
                connect(listener.endpoint, "s", KEY, path="shm" if kind == "unix" else "tcp")
        with manager, connect(listener.endpoint, "s", KEY) as client:
            assert manager.wait_connected(WAIT)
            assert client.capabilities().verification == "blake3"
            assert manager.capabilities() == client.capabilities()
            dst = manager.register(bytearray(1))
            assert client.post(client.register(b"x"), dst).result(WAIT) == 1
    assert "no compiler" in caplog.text


def test_a_named_path_is_never_replaced(tmp_path: Path) -> None:
    with Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        manager = listener.expect("s", KEY, path="shm")
        with pytest.raises(GenieError, match="GEN0609"):
            connect(listener.endpoint, "s", KEY, path="unix")
        with manager, connect(listener.endpoint, "s", KEY) as client:
            assert client.capabilities().path == "shm"
        with pytest.raises(GenieError, match="GEN0602"):
            connect(listener.endpoint, "s", KEY, path="tcp")


def test_same_host_goes_over_shared_memory_by_itself(tmp_path: Path) -> None:
    with Listener.open(f"unix://{tmp_path}/l.sock") as listener:
        manager = listener.expect("s", KEY)
        with manager, connect(listener.endpoint, "s", KEY) as client:
            assert manager.wait_connected(WAIT)
            assert manager.capabilities().path == client.capabilities().path == "shm"


def test_either_side_can_ask_for_encryption() -> None:
    for one, other in ((True, False), (False, True)):
        with Listener.open(LOOPBACK) as listener:
            manager = listener.expect("s", KEY, encrypt=one)
            with manager, connect(listener.endpoint, "s", KEY, encrypt=other) as client:
                assert client.capabilities().encrypted


# -- before the peer is there --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["shm", "tcp"])
def test_orders_before_the_peer_is_there(tmp_path: Path, path: str) -> None:
    where = f"unix://{tmp_path}/l.sock" if path == "shm" else LOOPBACK

    async def main() -> None:
        with Listener.open(where) as listener, listener.expect("s", KEY, path=path) as manager:
            first, buffer = manager.register(bytearray(4)), bytearray(4)
            dst = manager.register(buffer)
            manager.deregister(first)
            arrival = manager.arrival(dst)
            late = manager.arrival(manager.register(bytearray(1)), deadline=0.05)
            waiting = asyncio.ensure_future(_wait(arrival))
            await asyncio.sleep(0)  # the loop watches from here on
            assert await asyncio.to_thread(code_of, late) == "GEN0613"
            with await asyncio.to_thread(_connect, listener.endpoint, path) as client:
                into = client.register(bytearray(2))
                early = manager.post(manager.register(b"hi"), into)
                assert await asyncio.wait_for(early, WAIT) == 2
                sent = client.post(client.register(b"data"), dst)
                assert await asyncio.wait_for(sent, WAIT) == 4
                assert await asyncio.wait_for(waiting, WAIT) == 4
                assert buffer == b"data"

    asyncio.run(main())


def _connect(endpoint: str, path: str) -> TransferManager:
    return connect(endpoint, "s", KEY, path=path)


async def _wait(future: Any) -> int:
    return int(await future)


@pytest.mark.parametrize("path", ["shm", "tcp"])
def test_posts_wait_for_the_peer(tmp_path: Path, path: str) -> None:
    where = f"unix://{tmp_path}/l.sock" if path == "shm" else LOOPBACK
    with Listener.open(where) as listener, listener.expect("s", KEY, path=path) as manager:
        src = manager.register(b"data")
        with connect(listener.endpoint, "s", KEY, path=path, limits=SMALL) as client:
            buffer = bytearray(4)
            assert manager.post(src, client.register(buffer)).result(WAIT) == 4
            assert buffer == b"data"


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["shm", "tcp"])
def test_no_python_thread_polls(path: str) -> None:
    a, b = pair(path)
    with a, b:
        dst = b.register(bytearray(1))
        assert a.post(a.register(b"x"), dst).result(WAIT) == 1

        async def main() -> int:
            return await a.post(a.register(b"x"), dst)

        assert asyncio.run(main()) == 1
        assert not transfer_threads()
        done = threading.Event()
        a.post(a.register(b"x"), dst).add_done_callback(lambda _: done.set())
        assert done.wait(WAIT)  # callbacks without anybody who waits need one


@pytest.mark.parametrize("path", ["shm", "tcp"])
def test_many_threads_wait_at_once(path: str) -> None:
    a, b = pair(path)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            data = secrets.token_bytes(1000 + seed)
            buffer = bytearray(len(data))
            src, dst = a.register(data), b.register(buffer)
            for turn in range(200):
                arrival = b.arrival(dst) if turn % 2 else None
                future = a.post(src, dst)
                if turn % 3 == 0:
                    future.add_done_callback(lambda _: None)
                assert future.result(WAIT) == len(data)
                if arrival is not None:
                    assert arrival.result(WAIT) == len(data)
            assert buffer == data
        except BaseException as error:
            failures.append(error)

    with a, b:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not failures


def test_dropped_without_close() -> None:
    a, b = pair("shm")
    gone = weakref.ref(a)
    dst = b.register(bytearray(1))
    assert a.post(a.register(b"x"), dst).result(WAIT) == 1
    del a
    gc.collect()
    assert gone() is None
    eventually(lambda: b.failure is not None, "its peer is gone")
    b.close()


@pytest.mark.parametrize("path", ["shm", "tcp"])
def test_exit_without_close(path: str) -> None:
    """The interpreter ends while a peer is writing into its memory."""
    code = (
        "from genie_transport.testing import pair\n"
        f"a, b = pair({path!r})\n"
        "size = 256 << 20\n"
        "f = a.post(a.register(bytes(size)), b.register(bytearray(size)))\n"
        "while not f.progress(): pass\n"
        "print('leaving')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_connection_alone() -> None:
    a, b = pair("shm")
    with a, b:
        child = os.fork()
        if child == 0:
            for manager in (a, b):
                found: Any = manager._transport
                transport = getattr(found, "chosen", None) or found
                transport.__del__()  # as when the child lets go of it
            a._transport = b._transport = None  # type: ignore[assignment]
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1
