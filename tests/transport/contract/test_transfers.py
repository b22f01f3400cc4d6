"""What every path promises about moving bytes, in either direction."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest

from genie_transport import DMAHandle, Limits, Priority, TransferManager
from tests.transport.support import SMALL, WAIT, code_of, eventually, held, record

Pair = tuple[TransferManager, TransferManager]
CHUNK = SMALL.chunk_bytes
VERIFICATION = {
    "loopback": "memory",
    "unix": "blake3",
    "shm": "sequence",
    "tcp": "crc32c",
    "ucx": "crc32c",
    "ring": "crc32c",
    "dpdk": "crc32c",
}


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 63, CHUNK - 1, CHUNK, CHUNK + 1, 40 * CHUNK + 7])
def test_bytes_arrive_in_both_directions(make_pair: Callable[..., Pair], size: int) -> None:
    a, b = make_pair(SMALL)
    for sender, receiver in ((a, b), (b, a)):
        data, buffer = noise(size, size), bytearray(size)
        dst = receiver.register(buffer)
        arrival = receiver.arrival(dst)
        sent = sender.post(sender.register(data), dst, deadline=WAIT)
        assert sent.result(WAIT) == size
        assert arrival.result(WAIT) == size
        assert buffer == data
        assert sent.progress() == arrival.progress() == 1.0


def test_default_limits_move_many_windows(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    size = 20 * (1 << 20) + 3
    data, buffer = noise(1 << 20) * 20 + b"end", bytearray(size)
    assert a.post(a.register(data), b.register(buffer)).result(WAIT) == size
    assert buffer == data


def test_parts_of_both_sides(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    buffer = bytearray(b"." * 10)
    src, dst = a.register(b"0123456789"), b.register(buffer)
    arrival = b.arrival(dst)
    assert a.post(src.part(2, 3), dst.part(7, 3)).result(WAIT) == 3
    assert buffer == b".......234"
    assert not arrival.done()  # only a transfer of the whole is an arrival
    assert a.post(src.part(2, 6).part(1, 2), dst.part(0, 2)).result(WAIT) == 2
    assert buffer == b"34.....234"
    assert a.post(src, dst).result(WAIT) == 10
    assert arrival.result(WAIT) == 10


def test_many_small_transfers_share_calls(make_pair: Callable[..., Pair], path: str) -> None:
    a, b = make_pair()
    count = 3000  # beyond what may be unanswered at once
    data, buffer = noise(count * 16), bytearray(count * 16)
    src, dst = a.register(data), b.register(buffer)
    with held(a):
        futures = [a.post(src.part(16 * i, 16), dst.part(16 * i, 16)) for i in range(count)]
    assert [f.result(WAIT) for f in futures] == [16] * count
    assert buffer == data
    if path != "loopback":
        assert a.stats().sends < count  # an OPEN and a DATA frame each, in fewer calls than either


def test_classes_are_strict(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    order: list[Priority] = []
    with held(a):
        for priority in reversed(Priority):
            for _ in range(3):
                size = 4 * CHUNK
                future = a.post(
                    a.register(bytes(size)), b.register(bytearray(size)), priority=priority
                )
                future.add_done_callback(partial(record, order, priority))
    eventually(lambda: len(order) == 12, "all are done")
    assert order == sorted(order)


def test_turns_within_a_class(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(SMALL)
    order: list[str] = []
    with held(a):
        for name, chunks in (("long", 30), ("short", 1)):
            size = chunks * CHUNK
            future = a.post(a.register(bytes(size)), b.register(bytearray(size)))
            future.add_done_callback(partial(record, order, name))
    eventually(lambda: len(order) == 2, "both are done")
    assert order == ["short", "long"]


def test_arrivals_are_handed_out_once_each(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x" * 8), b.register(bytearray(8))
    first, second = b.arrival(dst), b.arrival(dst)
    a.post(src, dst).result(WAIT)
    assert first.result(WAIT) == 8
    assert not second.done()
    for _ in range(2):
        a.post(src, dst).result(WAIT)
    assert second.result(WAIT) == 8
    eventually(lambda: b.stats().arrivals == 3, "the third is counted")
    early = b.arrival(dst)  # it came before it was asked for
    assert early.done()
    assert not b.arrival(dst).done()


def test_threads_that_wait_for_one_another_are_all_woken(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    rounds = 200
    ends: list[str] = []

    def ask(mine: DMAHandle, source: DMAHandle, there: DMAHandle) -> None:
        for _ in range(rounds):
            answer = a.arrival(mine)
            a.post(source, there).result(WAIT)
            answer.result(WAIT)
        ends.append("asked")

    def answer(mine: DMAHandle, source: DMAHandle, there: DMAHandle) -> None:
        for _ in range(rounds):
            b.arrival(mine).result(WAIT)
            b.post(source, there).result(WAIT)
        ends.append("answered")

    threads = []
    for size in (64, 8192, 1 << 20):
        mine, there = a.register(bytearray(size)), b.register(bytearray(size))
        sources = a.register(bytes(size)), b.register(bytes(size))
        for run, *given in ((ask, mine, sources[0], there), (answer, there, sources[1], mine)):
            threads.append(threading.Thread(target=run, args=given))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(ends) == ["answered"] * 3 + ["asked"] * 3


def test_cancelled_arrival_takes_nothing(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair()
    src, dst = a.register(b"x"), b.register(bytearray(1))
    given_up, kept = b.arrival(dst), b.arrival(dst)
    assert given_up.cancel()
    a.post(src, dst).result(WAIT)
    assert kept.result(WAIT) == 1


def test_arrival_deadline(make_pair: Callable[..., Pair]) -> None:
    _, b = make_pair()
    assert code_of(b.arrival(b.register(bytearray(1)), deadline=0.01)) == "GEN0613"


def test_full_queue_refuses_or_waits(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(Limits(queue=2))
    src, dst = a.register(b"x" * 3), b.register(bytearray(3))
    parts = [(src.part(i, 1), dst.part(i, 1)) for i in range(3)]
    with held(a):
        fits = [a.post(*parts[0]), a.post(*parts[1])]
        assert code_of(a.post(*parts[2])) == "GEN0614"
        assert code_of(a.post(*parts[2], wait=0.01)) == "GEN0614"
    assert [f.result(WAIT) for f in fits] == [1, 1]
    with held(a):
        more = [a.post(*parts[0]), a.post(*parts[1])]
        assert more[0].cancel()
        last = a.post(*parts[2], wait=WAIT)  # there is room again
    assert last.result(WAIT) == 1
    assert more[1].result(WAIT) == 1


def test_waiting_for_room_ends_with_it(make_pair: Callable[..., Pair]) -> None:
    a, b = make_pair(Limits(queue=1))
    src, dst = a.register(b"xy"), b.register(bytearray(2))
    for _ in range(50):
        for i in (0, 1):
            assert not a.post(src.part(i, 1), dst.part(i, 1), wait=WAIT).cancelled()
    eventually(lambda: a.stats().completed == 100, "none was refused")


def test_arrival_queue_is_bounded(make_pair: Callable[..., Pair]) -> None:
    _, b = make_pair(Limits(queue=1))
    dst = b.register(bytearray(1))
    waiting = b.arrival(dst)
    assert code_of(b.arrival(dst)) == "GEN0614"
    assert waiting.cancel()


def test_stats_add_up(make_pair: Callable[..., Pair], path: str) -> None:
    a, b = make_pair(SMALL)
    size = 10 * CHUNK
    src, dst = a.register(bytes(size)), b.register(bytearray(size))
    a.post(src, dst).result(WAIT)
    assert code_of(a.post(src, dst.part(0, 1))) == "GEN0628"
    with held(a):
        assert a.post(src, dst).cancel()
    eventually(lambda: b.stats().arrivals == 1, "it is counted")
    sender, receiver = a.stats(), b.stats()
    assert (sender.transfers, sender.completed, sender.cancelled) == (2, 1, 1)
    assert (sender.failed, sender.outstanding, sender.in_flight) == (0, 0, 0)
    # Datagrams that ask whether the window still holds may go beyond it, one at a time: on a busy
    # machine the answer to the first is late.
    probe = 3 * 9000 if path == "ring" or path.startswith("dpdk") else 0
    assert 0 < sender.peak_in_flight <= SMALL.window_bytes + probe
    assert receiver.bytes_received >= size
    framing = 0 if path == "loopback" else 1
    assert sender.bytes_sent >= size + framing
    # Datagrams may be sent again when their answer is late.
    assert sender.bytes_sent < size * (2 if probe else 1.2)


def test_capabilities(make_pair: Callable[..., Pair], path: str, kind: str) -> None:
    a, b = make_pair(SMALL)
    found = a.capabilities()
    assert (found.path, found.devices) == (kind, ("cpu",))
    if kind in ("ring", "dpdk"):  # their chunks are what fits one datagram
        assert 512 < found.chunk_bytes < 9000
    else:
        assert found.chunk_bytes == CHUNK
    assert found.remote == (path in ("tcp", "dpdk-af_packet", "dpdk-af_xdp", "ucx-tcp"))
    assert found.verification == VERIFICATION[kind]
    assert not found.encrypted
    if kind == "dpdk":  # datagrams without anything to send make themselves known after seconds
        assert a.post(a.register(b"data"), b.register(bytearray(4))).result(WAIT) == 4
    assert a.wait_connected(WAIT)
    assert a.failure is None
