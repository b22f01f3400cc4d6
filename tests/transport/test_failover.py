"""Sessions over a port with the connection beside it: what is chosen, and moves in mid-run.

Over the ring port, which is the protocol without DPDK; tests/runtime has the devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genie_schemas.errors import GenieError
from genie_transport import Decision, Fabric, Limits, Listener, TransferManager, connect
from genie_transport._wires import core
from tests.transport.support import KEY, LOOPBACK, WAIT, Proxy, code_of, eventually
from tests.transport.test_tls import authority, client_tls, server_tls

__all__ = ["authority", "client_tls", "server_tls"]

pytestmark = pytest.mark.skipif(core()[0] is None, reason=f"not built: {core()[1]}")


class Joined:
    """Two managers of one session, their fabrics, and what each side was told of its path."""

    def __init__(self, stack: contextlib.ExitStack, **options: Any) -> None:
        path, encrypt = options.get("path"), options.get("encrypt", False)
        limits = options.get("limits") or Limits()
        tls = options.get("tls", (None, None))
        fabrics: tuple[Fabric, Fabric] | None = options.get("fabrics")
        self.left, self.right = fabrics or Fabric.rings(options.get("ring", "ring0"))
        stack.callback(self.left.close)
        stack.callback(self.right.close)
        self.told: tuple[list[Decision], list[Decision]] = ([], [])
        common: dict[str, Any] = {"path": path, "encrypt": encrypt, "limits": limits}
        listener = stack.enter_context(Listener.open(options.get("endpoint", LOOPBACK), tls[0]))
        right = [self.right] if options.get("listener_has_port", True) else []
        left = [self.left] if options.get("dialler_has_port", True) else []
        self.accepted = listener.expect(
            "s", KEY, fabrics=right, decided=self.told[1].append, **common
        )
        stack.callback(self.accepted.close)
        where = options.get("through", lambda endpoint: endpoint)(listener.endpoint)
        self.dialled = connect(
            where, "s", KEY, fabrics=left, tls=tls[1], decided=self.told[0].append, **common
        )
        stack.callback(self.dialled.close)
        assert self.accepted.wait_connected(WAIT)

    def lose(self, *, left: bool = True) -> None:
        """Take the port's session away on one side; the other hears of it."""
        transport(self.dialled if left else self.accepted)._first.close()

    def paths(self) -> set[str]:
        return {m.capabilities().path for m in (self.dialled, self.accepted)}


@pytest.fixture
def join() -> Iterator[Callable[..., Joined]]:
    with contextlib.ExitStack() as stack:
        yield lambda **options: Joined(stack, **options)


def watched(manager: TransferManager) -> None:
    """Have somebody look at a manager's events, as a daemon's callbacks do."""
    handle = manager.register(bytearray(1))
    manager.arrival(handle).add_done_callback(lambda _: None)


def moved(joined: Joined) -> None:
    eventually(lambda: joined.paths() == {"tcp"}, "both sides moved")
    eventually(lambda: all(len(told) == 2 for told in joined.told), "both sides were told")


# -- the choice ----------------------------------------------------------------------------------


def test_a_port_on_both_sides_is_taken(join: Callable[..., Joined]) -> None:
    joined = join()
    for manager, (choice,) in zip((joined.dialled, joined.accepted), joined.told, strict=True):
        assert manager.capabilities().path == "ring"
        assert manager.capabilities().verification == "aes-128-gcm"
        assert (choice.path, choice.wire, choice.fallback) == ("dpdk", "DPDK", "TCP")
        assert list(choice.reasons) == ["shm"]
    data, buffer = random.Random(0).randbytes(3_000_000), bytearray(3_000_000)
    future = joined.dialled.post(
        joined.dialled.register(data), joined.accepted.register(buffer), deadline=WAIT
    )
    assert future.result(WAIT) == len(data)
    assert buffer == data


@pytest.mark.parametrize("who", ["dialler", "listener"])
def test_without_a_port_on_one_side_the_next_path_is_taken(
    join: Callable[..., Joined], who: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "genie_transport"):
        joined = join(**{f"{who}_has_port": False})
    assert joined.paths() == {"tcp"}
    dialler, listener = (told[0].reasons["dpdk"] for told in joined.told)
    lacks, has = "no port is open here", "the peer does not take it"
    assert (dialler, listener) == ((lacks, has) if who == "dialler" else (has, lacks))
    assert f"not dpdk: {lacks}" in caplog.text
    assert f"not dpdk: {has}" in caplog.text


def test_a_named_path_needs_a_port(join: Callable[..., Joined]) -> None:
    with pytest.raises(GenieError, match="GEN0650"):
        join(path="dpdk", listener_has_port=False)
    with pytest.raises(GenieError, match="GEN0650"):
        join(path="dpdk", dialler_has_port=False)
    left, right = Fabric.rings()
    with (
        left,
        right,
        Listener.open(LOOPBACK) as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError, match="GEN0609"),
    ):
        connect(listener.endpoint, "s", KEY, path="dpdk", fabrics=[left])
    with pytest.raises(GenieError, match="GEN0650"):  # closed: it is down
        connect(LOOPBACK, "s", KEY, path="dpdk", fabrics=[left])


def test_both_sides_must_trust_their_fabric(join: Callable[..., Joined]) -> None:
    trusted = Fabric.rings(trusted=True)
    assert join(fabrics=trusted).dialled.capabilities().verification == "crc32c"
    one, two = Fabric.rings(trusted=True), Fabric.rings(trusted=False)
    with one[1], two[0]:
        assert (one[1].hello().trusted, two[0].hello().trusted) == (True, False)
    sealed = join(fabrics=Fabric.rings(trusted=True), encrypt=True)
    assert sealed.dialled.capabilities().encrypted
    assert sealed.accepted.capabilities().encrypted
    data, buffer = b"x" * 10_000, bytearray(10_000)
    handle = sealed.accepted.register(buffer)
    assert sealed.dialled.post(sealed.dialled.register(data), handle).result(WAIT) == 10_000


def test_over_a_unix_socket_when_it_is_named(join: Callable[..., Joined], tmp_path: Path) -> None:
    endpoint = f"unix://{tmp_path}/l.sock"
    assert join(endpoint=endpoint).paths() == {"shm"}
    assert join(endpoint=f"{endpoint}2", path="dpdk").paths() == {"ring"}


def test_ports_that_do_not_reach_each_other(join: Callable[..., Joined]) -> None:
    """Each side's ring leads elsewhere: the session moves before anything depends on it."""
    one, two = Fabric.rings(), Fabric.rings()
    with one[1], two[0]:
        joined = join(fabrics=(one[0], two[1]))
        moved(joined)
        assert "nothing came through the port" in str(joined.told[0][1])
        buffer = bytearray(4)
        handle = joined.accepted.register(buffer)
        assert joined.dialled.post(joined.dialled.register(b"data"), handle).result(WAIT) == 4
    one, two = Fabric.rings(), Fabric.rings()
    with one[1], two[0], pytest.raises(GenieError, match="GEN0651"):
        join(fabrics=(one[0], two[1]), path="dpdk")


# -- the move ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(16))
def test_everything_arrives_exactly_once(join: Callable[..., Joined], seed: int) -> None:
    """The path goes after the seed's number of events; loss and both directions meanwhile."""
    rng = random.Random(seed)
    joined = join(ring=f"ring0,drop=0.02,seed={seed}", encrypt=seed % 2 == 0)
    sides = (joined.dialled, joined.accepted)
    for side in sides:
        watched(side)
    sizes = [rng.choice([0, 1, 100, 5_000, 70_000, 900_000]) for _ in range(60)]
    lose_after, seen = rng.randrange(2 * len(sizes)), 0
    losing = threading.Event()
    arrived = [0] * len(sizes)
    completed = [0] * len(sizes)
    lock = threading.Lock()

    def note(counts: list[int], number: int, future: Any) -> None:
        nonlocal seen
        assert future.exception(0) is None, future.exception(0)
        with lock:
            counts[number] += 1
            seen += 1
            if seen >= lose_after:
                losing.set()

    def lose() -> None:
        losing.wait(WAIT)
        joined.lose(left=rng.random() < 0.5)

    loser = threading.Thread(target=lose)
    loser.start()
    jobs = []
    for number, size in enumerate(sizes):
        source, sink = sides if rng.random() < 0.7 else sides[::-1]
        data, buffer = rng.randbytes(size), bytearray(size)
        into = sink.register(buffer)
        sink.arrival(into).add_done_callback(partial(note, arrived, number))
        jobs.append((source, source.register(data), into, data, buffer))
    if not lose_after:
        losing.set()
    futures = []
    for number, (source, mine, into, _, _) in enumerate(jobs):
        future = source.post(mine, into, deadline=WAIT)
        future.add_done_callback(partial(note, completed, number))
        futures.append(future)
    assert [future.exception(WAIT) for future in futures] == [None] * len(sizes)
    loser.join(WAIT)
    moved(joined)
    eventually(lambda: sum(arrived) + sum(completed) >= 2 * len(sizes), "all is reported")
    assert arrived == [1] * len(sizes)
    assert completed == [1] * len(sizes)
    assert all(data == buffer for _, _, _, data, buffer in jobs)
    assert sum(side.stats().arrivals for side in sides) == len(sizes)
    for side, told in zip(sides, joined.told, strict=True):
        assert side.stats().switches == 1
        assert [choice.path for choice in told] == ["dpdk", "tcp"]
        assert told[1].reasons["dpdk"]


def test_a_path_that_goes_silent(join: Callable[..., Joined]) -> None:
    """No error is seen on either side: datagrams just stop."""
    joined = join()
    for manager in (joined.dialled, joined.accepted):
        watched(manager)
    port = transport(joined.dialled)._first
    port.hold(True)
    data, buffer = b"d" * 100_000, bytearray(100_000)
    future = joined.dialled.post(joined.dialled.register(data), joined.accepted.register(buffer))
    eventually(lambda: transport(joined.accepted)._phase.name != "FIRST", "the peer gives it up")
    port.hold(False)
    assert future.result(WAIT) == len(data)
    assert buffer == data
    moved(joined)


def transport(manager: TransferManager) -> Any:
    found: Any = manager._transport
    return getattr(found, "chosen", None) or found


def test_a_named_path_fails_with_its_reason(join: Callable[..., Joined]) -> None:
    joined = join(path="dpdk")
    watched(joined.accepted)
    handle = joined.accepted.register(bytearray(1))
    held = transport(joined.dialled)._first
    held.hold(True)
    future = joined.dialled.post(joined.dialled.register(b"x"), handle)
    joined.lose(left=False)
    held.hold(False)
    assert code_of(future) in ("GEN0610", "GEN0611")
    assert joined.dialled.failure is not None
    assert joined.dialled.stats().switches == 0
    assert [choice.path for choice in joined.told[0]] == ["dpdk"]


def test_the_next_path_over_tls_is_the_sessions_own(
    join: Callable[..., Joined], server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    joined = join(tls=(server_tls, client_tls))
    assert joined.told[0][0].fallback == "STREAM"
    joined.lose()
    watched(joined.accepted)
    data, buffer = b"d" * 100_000, bytearray(100_000)
    future = joined.dialled.post(joined.dialled.register(data), joined.accepted.register(buffer))
    assert future.result(WAIT) == len(data)
    assert buffer == data
    moved(joined)
    for manager in (joined.dialled, joined.accepted):
        assert manager.capabilities().encrypted
        assert manager.capabilities().verification == "blake3"


def test_awaiting_goes_on(join: Callable[..., Joined]) -> None:
    joined = join()

    async def main() -> None:
        buffer = bytearray(1000)
        handle = joined.accepted.register(buffer)
        arrival = asyncio.ensure_future(_wait(joined.accepted.arrival(handle)))
        await asyncio.sleep(0)
        await asyncio.to_thread(joined.lose)
        source = joined.dialled.register(b"a" * 1000)
        assert await asyncio.wait_for(_wait(joined.dialled.post(source, handle)), WAIT) == 1000
        assert await asyncio.wait_for(arrival, WAIT) == 1000
        assert buffer == b"a" * 1000

    asyncio.run(main())
    moved(joined)


async def _wait(future: Any) -> int:
    return int(await future)


# -- while it moves ------------------------------------------------------------------------------


class Gate:
    """A proxy's `tamper` that holds the connection behind the handshake until it is opened."""

    def __init__(self) -> None:
        self.shut = threading.Event()
        self.open = threading.Event()

    def __call__(self, by_dialler: bool, offset: int, data: bytes) -> bytes:
        if self.shut.is_set():
            self.open.wait(WAIT)
        return data


def test_orders_while_it_moves(join: Callable[..., Joined], tmp_path: Path) -> None:
    gate = Gate()
    with Proxy(tmp_path, gate) as proxy:
        joined = join(through=proxy)
        a, b = joined.dialled, joined.accepted
        watched(a)
        watched(b)
        gate.shut.set()
        joined.lose()
        eventually(lambda: not _first(a), "it moves")
        buffer, gone = bytearray(4), bytearray(4)
        handle, withdrawn = b.register(buffer), b.register(gone)
        b.deregister(withdrawn)
        source = a.register(b"data")
        posted = a.post(source, handle)
        refused = a.post(source, withdrawn)
        cancelled = a.post(source, handle)
        assert cancelled.cancel()
        late = a.post(source, handle, deadline=0.05)
        assert code_of(late) == "GEN0613"
        a.advance_epoch()
        assert not posted.done()
        gate.open.set()
        assert posted.result(WAIT) == 4
        assert code_of(refused) == "GEN0623"
        assert buffer == b"data"
        assert gone == bytes(4)
        moved(joined)
        a.close()
        b.close()


def _first(manager: TransferManager) -> bool:
    return bool(transport(manager)._phase.name == "FIRST")


def test_closing_while_it_moves(join: Callable[..., Joined], tmp_path: Path) -> None:
    gate = Gate()
    with Proxy(tmp_path, gate) as proxy:
        joined = join(through=proxy)
        a, b = joined.dialled, joined.accepted
        watched(a)
        gate.shut.set()
        joined.lose()
        future = a.post(a.register(b"x"), b.register(bytearray(1)))
        eventually(lambda: not _first(a), "it moves")
        a.close()
        assert code_of(future) == "GEN0611"
        gate.open.set()
        b.close()


def test_a_peer_that_goes_while_it_moves(join: Callable[..., Joined], tmp_path: Path) -> None:
    """The connection is cut at every part of what is said about the move."""
    for extra in (0, 1, 7, 30, 60, 90):
        counts: dict[bool, int] = {}

        def cut(by_dialler: bool, offset: int, data: bytes) -> bytes:
            if counts and by_dialler and offset + len(data) > counts[True] + extra:  # noqa: B023
                raise OSError("cut")
            return data

        with Proxy(tmp_path, cut) as proxy, contextlib.ExitStack() as stack:
            joined = Joined(stack, through=proxy)
            a, b = joined.dialled, joined.accepted
            counts.update(proxy.counts)
            futures = [b.arrival(b.register(bytearray(1)))]
            joined.lose()
            futures.append(a.post(a.register(b"x"), b.register(bytearray(1))))
            for future in futures:
                assert code_of(future) in ("GEN0610", "GEN0611", "GEN0615"), extra


def test_flipped_bits_of_the_move_end_the_session(tmp_path: Path) -> None:
    for position in range(0, 60, 7):
        start: list[int] = []

        def flip(by_dialler: bool, offset: int, data: bytes) -> bytes:
            if start and by_dialler:  # noqa: B023
                at = start[0] + position - offset  # noqa: B023
                if 0 <= at < len(data):
                    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            return data

        limits = Limits(stall_timeout=2.0)  # a larger size is waited for in vain
        with Proxy(tmp_path, flip) as proxy, contextlib.ExitStack() as stack:
            joined = Joined(stack, through=proxy, limits=limits)
            start.append(proxy.counts[True])
            buffer = bytearray(1)
            arrival = joined.accepted.arrival(joined.accepted.register(buffer))
            joined.lose()
            assert code_of(arrival) in ("GEN0610", "GEN0611", "GEN0615", "GEN0631"), position
            assert buffer == bytes(1)
