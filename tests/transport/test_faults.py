"""Peers that die, stop, lie; connections that are cut, damaged, slow."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from genie_transport import DMAHandle, Limits, Listener, TransferError, TransferManager
from genie_transport._frames import FrameWriter, Kind
from genie_transport._handshake import TrafficKeys
from genie_transport._link import PeerTerms
from genie_transport._sockets import SocketTransport
from genie_transport._stream import PlainStream
from genie_transport._types import (
    Capabilities,
    Counters,
    Event,
    Region,
    Transfer,
)
from genie_transport.testing import PATHS, pair
from tests.transport import peer
from tests.transport.support import (
    KEY,
    LOOPBACK,
    SMALL,
    WAIT,
    Proxy,
    code_of,
    eventually,
    flipped,
    held,
    session,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[path for path in PATHS if path not in ("loopback", "ring")])
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path that joins two processes."""
    path, _, transports = str(request.param).partition("-")
    if path == "ucx" and transports:
        monkeypatch.setenv("UCX_TLS", transports)  # for the child too
    return str(request.param)


class Child:
    """A peer process and the manager that is connected to it."""

    def __init__(self, manager: TransferManager, process: subprocess.Popen[str]) -> None:
        self.manager = manager
        self.process = process

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def sink(self, size: int) -> DMAHandle:
        return DMAHandle.from_json(json.loads(self.ask(str(size))))


@contextlib.contextmanager
def child(folder: Path, remote: str, mode: str, limits: Limits = peer.LIMITS) -> Iterator[Child]:
    path, network = remote.partition("-")[0], remote.endswith("tcp")
    where = LOOPBACK if network else f"unix://{folder}/{mode}.sock"
    with Listener.open(where) as listener:
        manager = listener.expect("s", KEY, path=path, trusted=network, limits=limits)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.peer", listener.endpoint, mode, path],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            with manager, process:
                assert manager.wait_connected(WAIT)
                yield Child(manager, process)
                process.kill()
        finally:
            process.kill()


# -- processes ---------------------------------------------------------------------------------


def test_receiver_killed_in_the_middle(tmp_path: Path, remote: str) -> None:
    size = 256 << 20
    with child(tmp_path, remote, "sink") as other:
        src = other.manager.register(bytearray(size))
        sinks = [other.sink(size) for _ in range(4)]
        futures = [other.manager.post(src, sink) for sink in sinks]
        eventually(lambda: futures[0].progress() > 0, "it has begun")
        other.process.send_signal(signal.SIGKILL)
        for future in futures:
            assert code_of(future) == "GEN0610"
            assert future.progress() < 1.0
        assert code_of(other.manager.post(src, src)) == "GEN0610"


def test_sender_killed_in_the_middle(tmp_path: Path, remote: str) -> None:
    with child(tmp_path, remote, "source") as other:
        dst = other.manager.register(bytearray(512 << 20))
        arrival = other.manager.arrival(dst)
        other.ask(json.dumps(dst.to_json()))
        eventually(lambda: other.manager.stats().bytes_received > 1 << 20, "it has begun")
        other.process.send_signal(signal.SIGKILL)
        assert code_of(arrival) == "GEN0610"
        assert other.manager.stats().arrivals == 0


def test_stopped_receiver_bounds_memory_and_stalls_nobody(tmp_path: Path, remote: str) -> None:
    size = 64 << 20
    with child(tmp_path, remote, "sink") as other:
        stuck = other.manager
        src = stuck.register(bytes(size))
        dst = other.sink(size)
        other.process.send_signal(signal.SIGSTOP)
        me = psutil.Process()
        before = me.memory_info().rss
        future = stuck.post(src, dst)
        eventually(lambda: stuck.stats().in_flight > 0, "it has begun")
        a, b = pair(remote)
        with a, b:  # others go on
            data = bytes(1 << 20)
            into = b.register(bytearray(1 << 20))
            for _ in range(50):
                assert a.post(a.register(data), into).result(WAIT) == len(data)
        assert not future.done()
        assert stuck.stats().peak_in_flight <= 1 << 20
        assert me.memory_info().rss - before < 32 << 20
        assert code_of(stuck.post(src, dst, deadline=0.01)) == "GEN0613"
        other.process.send_signal(signal.SIGCONT)
        assert future.result(WAIT) == size


def test_stopped_peer_is_noticed(tmp_path: Path, remote: str) -> None:
    limits = Limits(stall_timeout=2.0)
    with child(tmp_path, remote, "sink", limits) as other:
        waiting = other.manager.arrival(other.manager.register(bytearray(1)))
        # Keepalives keep a quiet connection: each side says how often it wants to hear.
        received = other.manager.stats().bytes_received
        eventually(
            lambda: other.manager.stats().bytes_received >= received + 3 * 64, "three keepalives"
        )
        other.process.send_signal(signal.SIGSTOP)
        error = waiting.exception(WAIT)
        assert error is not None
        assert error.code == "GEN0615"
        assert error.to_genie_error().exit_code == 5


@pytest.mark.parametrize("path", ["unix", "tcp"])
def test_closing_does_not_wait_for_a_peer_that_takes_nothing(path: str) -> None:
    a, b = pair(path)
    size = 64 << 20
    with b:
        dst = b.register(bytearray(size))
        arrival = b.arrival(dst)
        with held(b):
            future = a.post(a.register(bytes(size)), dst)
            eventually(lambda: a.stats().in_flight > 0, "it has begun")
            a.close()  # the frames that the peer has no room for are given up
        assert code_of(future) == "GEN0611"
        assert code_of(arrival) == "GEN0610"


# -- the wire ----------------------------------------------------------------------------------


def exchange(folder: Path, proxy: Proxy) -> tuple[str | None, str | None, bytes, int]:
    """Post 64 bytes through `proxy`: how post and arrival ended, the buffer, its first offset."""
    with session(folder, through=proxy) as (dialled, accepted):
        begin = proxy.counts[True]
        buffer = bytearray(64)
        dst = accepted.register(buffer)
        arrival = accepted.arrival(dst, deadline=WAIT)
        future = dialled.post(dialled.register(b"\1" * 64), dst, deadline=WAIT)
        posted = code_of(future)
        if posted == "GEN0630":  # the connection goes on, and nothing will arrive
            arrival.cancel()
        return posted, code_of(arrival), bytes(buffer), begin


def measure(folder: Path) -> tuple[int, int]:
    """(offset, length) of the frames of one small transfer in what the dialler sends."""
    with Proxy(folder) as proxy:
        posted, arrived, buffer, begin = exchange(folder, proxy)
        assert (posted, arrived, buffer) == (None, None, b"\1" * 64)
        return begin, 64 + 48 + 16 + 64 + 64 + 16  # OPEN and DATA with header, payload, tags


ANSWERS = 7 + 32 + 7 + 24 + 32  # behind the listener's challenge and welcome


def test_cut_at_every_byte(tmp_path: Path) -> None:
    begin, length = measure(tmp_path)
    for offset in range(begin, begin + length):
        with Proxy(tmp_path, cut=(True, offset)) as proxy:
            posted, arrived, _, _ = exchange(tmp_path, proxy)
        assert (posted, arrived) == ("GEN0610", "GEN0610"), offset


def test_answer_cut_at_every_byte(tmp_path: Path) -> None:
    for offset in range(ANSWERS, ANSWERS + 64):
        with Proxy(tmp_path, cut=(False, offset)) as proxy:
            posted, arrived, buffer, _ = exchange(tmp_path, proxy)
        # It arrived, and the poster does not know: it may post again.
        assert (posted, arrived, buffer) == ("GEN0610", None, b"\1" * 64), offset


def test_bit_flips_at_every_byte(tmp_path: Path) -> None:
    begin, length = measure(tmp_path)
    outcomes: dict[tuple[str | None, str | None], int] = {}
    for position in range(begin, begin + length):
        with Proxy(tmp_path, partial(flipped, position)) as proxy:
            posted, arrived, _, _ = exchange(tmp_path, proxy)
        assert posted is not None, position
        assert arrived is not None, position
        outcomes[posted, arrived] = outcomes.get((posted, arrived), 0) + 1
    # Damage to the payload or its tag fails the transfer alone; anything else the connection.
    assert outcomes == {("GEN0630", "GEN0612"): 80, ("GEN0610", "GEN0631"): length - 80}


def test_flipped_answers_are_noticed(tmp_path: Path) -> None:
    def flip(by_dialler: bool, offset: int, data: bytes) -> bytes:
        if not by_dialler and offset >= ANSWERS:
            return data[:20] + bytes([data[20] ^ 1]) + data[21:]
        return data

    with Proxy(tmp_path, flip) as proxy:
        posted, arrived, buffer, _ = exchange(tmp_path, proxy)
    assert (posted, arrived, buffer) == ("GEN0631", None, b"\1" * 64)


def test_a_dripping_connection_is_slow_but_correct(tmp_path: Path) -> None:
    limits = Limits(chunk_bytes=4096, window_bytes=8192)
    with Proxy(tmp_path) as proxy, session(tmp_path, limits=limits, through=proxy) as (a, b):
        data, buffer = os.urandom(100_000), bytearray(100_000)
        assert a.post(a.register(data), b.register(buffer)).result(WAIT) == len(data)
        assert buffer == data
        assert a.stats().peak_in_flight <= 8192


@pytest.mark.parametrize("kind", ["forged", "repeated"])
def test_injected_frames_are_refused(tmp_path: Path, kind: str) -> None:
    """Someone on the path adds a frame, or repeats one: the connection ends, typed."""
    forged = b"".join(bytes(p) for p in FrameWriter(bytes(32)).seal(Kind.BYE))
    begin, _ = measure(tmp_path)

    def inject(by_dialler: bool, offset: int, data: bytes) -> bytes:
        if by_dialler and offset >= begin:
            return data + (forged if kind == "forged" else data)
        return data

    with Proxy(tmp_path, inject) as proxy, session(tmp_path, through=proxy) as (a, b):
        dst = b.register(bytearray(64))
        arrival = b.arrival(dst)
        a.post(a.register(bytes(64)), dst)
        assert arrival.result(WAIT) == 64  # it came before the forgery, and is genuine
        eventually(lambda: b.failure is not None, "the forgery is noticed")
        assert b.failure is not None
        assert b.failure.code == "GEN0631"


# -- the source --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("loopback", "shm")])
def test_source_changed_while_it_is_sent(path: str) -> None:
    """A careless caller harms its own transfer, not the connection."""
    a, b = pair(path, limits=SMALL)
    with a, b:
        size = 1 << 20
        source, target = bytearray(size), bytearray(size)
        src, dst = a.register(source), b.register(target)
        codes = set()
        for _ in range(5):
            future = a.post(src, dst)
            while not future.done():
                source[::97] = os.urandom(1) * len(range(0, size, 97))
            codes.add(code_of(future))
        assert codes <= {None, "GEN0630"}
        assert a.post(src, dst).result(WAIT) == size
        assert target == source


# -- the order of things -----------------------------------------------------------------------


class SendsFail(PlainStream):
    """A socket that reads nothing until a send has failed: the peer went in between."""

    failed = False

    def send(self, parts: Sequence[memoryview]) -> int:
        self.failed = True
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def recv_into(self, view: memoryview) -> int | None:
        return super().recv_into(view) if self.failed else None


def test_what_the_peer_said_before_it_went_counts() -> None:
    near, far = socket.socketpair()
    keys, limits = (b"a" * 32, b"b" * 32), Limits()
    terms = PeerTerms(limits.window_bytes, limits.chunk_bytes, limits.stall_timeout)
    ends = []
    for stream, (send, receive) in ((SendsFail(near), keys), (PlainStream(far), keys[::-1])):
        transport = SocketTransport("unix", limits, encrypted=False)
        assert transport.attach(stream, TrafficKeys(send, receive), terms)
        ends.append(TransferManager(transport, limits))
    here, there = ends
    with here, there:
        buffer = bytearray(5)
        dst = here.register(buffer)
        arrival = here.arrival(dst)
        there.post(there.register(b"words"), dst)
        eventually(lambda: there.stats().bytes_sent > 0, "it is on its way")
        there.close()
        failed = here.post(dst, dst)
        assert code_of(failed) == "GEN0610"
        assert arrival.result(WAIT) == 5
        assert buffer == b"words"
        assert here.failure is not None
        assert here.failure.message == "the peer closed the connection"


# -- a transport that breaks -------------------------------------------------------------------


class Broken:
    """A transport whose poll fails as only a bug can."""

    def __init__(self) -> None:
        self.ended = False

    def capabilities(self) -> Capabilities:
        return Capabilities("broken", False, ("cpu",), 1, 1, 1, "memory", False)

    def counters(self) -> Counters:
        return Counters()

    def register(self, region: Region) -> None:
        pass

    def deregister(self, region: Region) -> None:
        pass

    def fence(self, epoch: int) -> None:
        pass

    def post(self, transfer: Transfer) -> None:
        self.ended = True

    def cancel(self, op_id: int) -> None:
        pass

    def poll(self, timeout: float | None) -> Sequence[Event]:
        time.sleep(0.005)
        if self.ended:
            raise ZeroDivisionError
        return []

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.ended = True


def test_a_bug_in_a_transport_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    manager = TransferManager(Broken(), Limits())
    src = manager.register(bytearray(1))
    waiting = manager.arrival(src)
    assert code_of(manager.post(src, src)) == "GEN0610"
    assert code_of(waiting) == "GEN0610"
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(TransferError, match="ZeroDivisionError"):
        manager.register(bytearray(1))
    manager.close()
