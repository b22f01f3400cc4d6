"""Sessions on devices: faults, ports that go down, peers that die, neighbours that do not read."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_schemas.errors import GenieError
from genie_transport import DMAHandle, Fabric, FabricHello, Limits, TransferManager
from genie_transport._datagram import DatagramTransport
from genie_transport._fabric_pair import missing, veth_pair
from genie_transport._handshake import TrafficKeys
from genie_transport.testing import pair
from tests.transport.support import WAIT, code_of, eventually

needs_dpdk = pytest.mark.skipif(missing("dpdk") is not None, reason=str(missing("dpdk")))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
MIB = 1 << 20
FAULTS = ",drop=0.02,duplicate=0.02,late=0.05,lateness_us=300,flip=0.01,truncate=0.01,seed="


@pytest.fixture
def rings() -> Iterator[tuple[Fabric, Fabric]]:
    left, right = Fabric.rings("ring0", trusted=True)
    with left, right:
        yield left, right


def joined(
    left: Fabric, right: Fabric, limits: Limits | None = None, *, epochs: tuple[int, int] = (1, 1)
) -> tuple[DatagramTransport, DatagramTransport]:
    """The two ends of a session."""
    limits = limits or Limits()
    keys = secrets.token_bytes(32), secrets.token_bytes(32)
    numbers = left.allocate_connection(), right.allocate_connection()
    a, b = (
        one.transport(
            limits,
            TrafficKeys(keys[end], keys[1 - end]),
            peer=FabricHello.from_bytes(other.hello().to_bytes()),
            local_connection=numbers[end],
            peer_connection=numbers[1 - end],
            epoch=epochs[end],
        )
        for end, (one, other) in enumerate(((left, right), (right, left)))
    )
    return a, b


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_fault_at_once(encrypt: bool, seed: int) -> None:
    a, b = pair("ring", encrypt=encrypt, options=f"{FAULTS}{seed}")
    with a, b:
        assert a.capabilities().encrypted is encrypt
        for size in (0, 1, 4 * MIB + 3):
            data, buffer = secrets.token_bytes(size), bytearray(size)
            arrival = b.arrival(dst := b.register(buffer))
            assert a.post(a.register(data), dst).result(WAIT) == size
            assert arrival.result(WAIT) == size
            assert buffer == data
        transport = b._transport
        assert isinstance(transport, DatagramTransport)
        assert transport.details()["rejected"] > 0


@pytest.mark.parametrize("encrypt", [False, True])
def test_sessions_of_another_epoch_or_key_hear_nothing(encrypt: bool) -> None:
    left, right = Fabric.rings("ring0", trusted=not encrypt)
    quick = Limits(stall_timeout=1.0)
    with left, right:
        ends = joined(left, right, quick, epochs=(1, 2))
        a, b = (TransferManager(end, quick) for end in ends)
        with a, b:
            future = a.post(a.register(b"data"), b.register(bytearray(4)))
            assert code_of(future) == "GEN0615"
            assert ends[1].details()["rejected"] > 0
            assert ends[1].details()["bytes_landed"] == 0


def test_a_session_is_encrypted_unless_both_sides_trust() -> None:
    left, right = Fabric.rings("ring0", trusted=True)
    with left, right:
        hello = left.hello()
        assert hello.trusted
        right._trusted = False
        a, b = joined(left, right)
        for end in (a, b):
            assert end.capabilities().encrypted
            assert end.capabilities().verification == "aes-128-gcm"
            end.close()


def test_what_another_path_needs_to_go_on(rings: tuple[Fabric, Fabric]) -> None:
    left, right = rings
    ends = joined(left, right)
    a, b = (TransferManager(end, Limits()) for end in ends)
    with a, b:
        done = a.post(a.register(b"data"), b.register(bytearray(4)))
        assert done.result(WAIT) == 4
        assert ends[0].outstanding() == []
        ends[1].hold(True)  # nothing more reaches b
        lost = a.post(a.register(bytes(MIB)), b.register(bytearray(MIB)))
        ends[0].hold(True)
        queued = a.post(a.register(b"x"), b.register(bytearray(1)))
        numbers = dict(ends[0].outstanding())
        assert set(numbers) == {lost.op_id, queued.op_id}
        assert numbers[queued.op_id] == 0  # of this one nothing was sent
        assert not ends[1].finished(numbers[lost.op_id])
        assert not ends[1].finished(0)
        assert not ends[1].finished(1 << 63)
        ends[0].hold(False)
        eventually(lambda: dict(ends[0].outstanding())[queued.op_id] != 0, "it was sent too")
        ends[1].hold(False)
        number = dict(ends[0].outstanding()).get(lost.op_id, 0)
        assert lost.result(WAIT) == MIB
        if number:
            assert ends[1].finished(number)


def test_what_was_outstanding_is_known_after_the_end(rings: tuple[Fabric, Fabric]) -> None:
    left, right = rings
    quick = Limits(stall_timeout=1.0)
    ends = joined(left, right, quick)
    a, b = (TransferManager(end, quick) for end in ends)
    with a, b:
        ends[1].hold(True)
        future = a.post(a.register(bytes(MIB)), b.register(bytearray(MIB)))
        assert code_of(future) == "GEN0615"
        assert [op for op, _ in ends[0].outstanding()] == [future.op_id]
        ends[1].hold(False)  # closing waits for who is held


def test_two_who_have_nothing_to_send_find_each_other(rings: tuple[Fabric, Fabric]) -> None:
    limits = Limits(stall_timeout=600.0)  # far off is when one of them would be missed
    a, b = (TransferManager(end, limits) for end in joined(*rings, limits))
    with a, b:
        assert a.wait_connected(WAIT)
        assert b.wait_connected(WAIT)


def test_closing_a_fabric_ends_its_sessions(rings: tuple[Fabric, Fabric]) -> None:
    left, right = rings
    a, b = (TransferManager(end, Limits()) for end in joined(left, right))
    with a, b:
        left.close()
        left.close()
        assert not left.up()
        eventually(lambda: a.failure is not None and a.failure.code == "GEN0611", "a is told")
        eventually(lambda: b.failure is not None and b.failure.code == "GEN0610", "b hears of it")
        with pytest.raises(GenieError, match="GEN0611"):
            joined(left, right)


def test_a_port_without_a_descriptor_sleeps(rings: tuple[Fabric, Fabric]) -> None:
    """Idle threads cost next to nothing, and what comes then is still taken."""
    left, right = rings
    assert not left.wakes
    a, b = (TransferManager(end, Limits()) for end in joined(left, right))
    with a, b:
        assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1
        time.sleep(0.5)  # until both have fallen asleep
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.5  # spinning would be 2
        assert a.post(a.register(b"x"), b.register(bytearray(1))).result(WAIT) == 1


def test_a_peer_that_does_not_take_part_stops_nobody_else(rings: tuple[Fabric, Fabric]) -> None:
    left, right = rings
    slow, fast = joined(left, right), joined(left, right)
    a, b = (TransferManager(end, Limits()) for end in slow)
    c, d = (TransferManager(end, Limits()) for end in fast)
    with a, b, c, d:
        slow[1].hold(True)
        stuck = a.post(a.register(bytes(32 * MIB)), b.register(bytearray(32 * MIB)))
        source, target = c.register(bytes(64)), d.register(bytearray(64))
        for _ in range(200):
            assert c.post(source, target).result(WAIT) == 64
        assert not stuck.done()
        assert a.stats().peak_in_flight <= Limits().window_bytes
        slow[1].hold(False)
        assert stuck.result(WAIT) == 32 * MIB


@needs_dpdk
def test_packet_buffers_that_run_out_hold_transfers_up(dpdk: None) -> None:
    """Both ends of a lossless device share one pool, and more sessions post than it has room."""
    with Fabric.open("net_ring6", trusted=True, memory_mb=512) as fabric:
        ends = [joined(fabric, fabric) for _ in range(4)]
        managers = [tuple(TransferManager(end, Limits()) for end in two) for two in ends]
        data = secrets.token_bytes(8 * MIB)
        posts = [
            (a.post(a.register(data), b.register(buffer)), buffer)
            for a, b in managers
            for buffer in [bytearray(len(data))]
        ]
        for future, buffer in posts:
            assert future.result(WAIT) == len(data)
            assert buffer == data
        for two in managers:
            for manager in two:
                manager.close()


@needs_dpdk
@needs_root
def test_a_port_goes_down_and_comes_back(dpdk: None) -> None:
    from pyroute2 import NetNS

    with veth_pair(1500) as veth:
        left, right = (
            Fabric.open(f"net_af_packet{6 + i},iface={name}", trusted=True, netns=space)
            for i, name, space in zip((0, 1), veth.interfaces, veth.namespaces, strict=True)
        )
        with left, right, NetNS(veth.namespaces[1]) as there:
            assert left.wakes
            index = there.link_lookup(ifname=veth.interfaces[1])[0]
            a, b = (TransferManager(end, Limits()) for end in joined(left, right))
            with a, b:
                there.link("set", index=index, state="down")
                eventually(lambda: not left.up() and not right.up(), "both have noticed")
                data, buffer = secrets.token_bytes(MIB), bytearray(MIB)
                future = a.post(a.register(data), b.register(buffer))
                there.link("set", index=index, state="up")
                assert future.result(WAIT) == MIB
                assert buffer == data
                there.link("set", index=index, state="down")
                late = a.post(a.register(data), b.register(bytearray(MIB)))
                assert code_of(late) == "GEN0641"  # it stays away for longer than is forgiven
                eventually(lambda: b.failure is not None, "so does its peer")


@needs_dpdk
@needs_root
def test_peers_of_different_mtu_take_the_smaller(dpdk: None) -> None:
    with veth_pair(9000) as veth:
        left, right = (
            Fabric.open(f"net_af_packet{6 + i},iface={name},mtu={mtu}", trusted=True, netns=space)
            for i, mtu, name, space in zip(
                (0, 1), (9000, 1500), veth.interfaces, veth.namespaces, strict=True
            )
        )
        with left, right:
            ends = joined(left, right)
            assert {end.capabilities().chunk_bytes for end in ends} == {1344}
            a, b = (TransferManager(end, Limits()) for end in ends)
            with a, b:
                data, buffer = secrets.token_bytes(MIB), bytearray(MIB)
                assert a.post(a.register(data), b.register(buffer)).result(WAIT) == MIB
                assert buffer == data


_PEER = """
import json, sys
from genie_transport import Fabric, FabricHello, Limits, TransferManager
from genie_transport._handshake import TrafficKeys
with Fabric.open(sys.argv[1], trusted=True) as fabric:
    print(fabric.hello().to_bytes().hex(), flush=True)
    peer = FabricHello.from_bytes(bytes.fromhex(input()))
    end = fabric.transport(
        Limits(stall_timeout=5.0), TrafficKeys(b"b" * 32, b"a" * 32), peer=peer,
        local_connection=2, peer_connection=1, epoch=1,
    )
    manager = TransferManager(end, Limits())
    print(json.dumps(manager.register(bytearray(256 << 20)).to_json()), flush=True)
    input()
"""


@needs_dpdk
@pytest.mark.parametrize("turn", range(3))
def test_a_memif_peer_is_killed_in_mid_message(dpdk: None, tmp_path: Path, turn: int) -> None:
    """Its memory is unmapped under a busy port: the transfer fails typed, and nobody crashes."""
    socket = tmp_path / "memif.sock"
    number = 40 + 2 * turn
    with Fabric.open(f"net_memif{number},role=server,socket={socket}", trusted=True) as fabric:
        command = [sys.executable, "-c", _PEER, f"net_memif0,role=client,socket={socket}"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            hello = FabricHello.from_bytes(bytes.fromhex(child.stdout.readline()))
            child.stdin.write(fabric.hello().to_bytes().hex() + "\n")
            child.stdin.flush()
            text = child.stdout.readline()
            limits = Limits(stall_timeout=5.0)  # patient enough for a busy machine
            end = fabric.transport(
                limits,
                TrafficKeys(b"a" * 32, b"b" * 32),
                peer=hello,
                local_connection=1,
                peer_connection=2,
                epoch=1,
            )
            with TransferManager(end, limits) as manager:
                handle = DMAHandle.from_json(json.loads(text))
                future = manager.post(manager.register(bytes(handle.length)), handle)
                eventually(lambda: future.progress() > 0 or future.done(), "it has begun")
                assert not future.done(), future.exception(WAIT)
                os.kill(child.pid, signal.SIGKILL)
                assert code_of(future) == "GEN0615"
                assert child.wait(WAIT) == -signal.SIGKILL
        assert not fabric.up()
