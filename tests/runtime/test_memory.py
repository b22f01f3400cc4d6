"""Memory under pressure, and between sessions: back-pressure, nothing lost, nothing seen."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.client import connect
from genie.client.admin import status
from genie.client.opening import hello
from genie_runtime.budget import Budget
from genie_runtime.embedded import embedded_node
from genie_runtime.gpu_direct import choose, obstacles
from genie_runtime.mail import Wires
from genie_runtime.node import Node
from genie_runtime.plans import install
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import DeviceSpec
from genie_runtime.run import Run
from genie_runtime.session import Session
from genie_schemas.constants import ConstantFiles
from genie_schemas.errors import GenieError
from genie_schemas.messages import KeepRequest, PrepareRequest
from genie_transport import TransferError
from genie_transport.testing import PATHS, pair
from tests.daemons import Daemons, until
from tests.plans_by_hand import HandMade, two_layers

MIB = 1 << 20
CANARY = b"\xc5CANARY\x5c"
X = np.random.default_rng(3).standard_normal((8, 16), dtype=np.float32)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = embedded_node(devices=["cpu:memory=64MiB"], state_dir=tmp_path / "state", threads=1)
    yield made
    made.close()


def join(node: Node, made: HandMade) -> Session:
    """A session that has the plan and its constants."""
    session = node.open_embedded(hello())
    plan = install(made.path.read_text(), made.plan.plan_digest, node.core.limits)
    node.intake.adopt(session, node.core.library.keep(plan), list(made.plan.devices))
    by_digest = {c.digest: c.source for c in made.plan.constants.values()}
    with ConstantFiles(made.path.parent) as files:
        for device, digest, _ in node.intake.lacking(session, made.plan.plan_digest):
            node.core.store.put(session.id, device, digest, files.view(by_digest[digest]))
    return session


def admit(node: Node, session: Session, made: HandMade, wait: float = 0.0) -> Run:
    request = PrepareRequest(
        session=session.id,
        plan_digest=made.plan.plan_digest,
        entrypoint="forward",
        run_id="run",
        durable=False,
        dims={"batch": len(X)},
        links={},
        wait_ms=int(wait * 1000),
        deadline_ms=60_000,
    )
    run = node.dispatch.admit(session, request, Wires())
    assert run is not None
    return run


def leave(node: Node, session: Session) -> None:
    node.close_session(KeepRequest(session=session.id))


def views(run: Run) -> list[memoryview]:
    shares = run.shares.values()
    tables = [(s, t) for s in shares for t in (s.inputs, s.incoming, s.outgoing, s.outputs)]
    return [share.view(region) for share, table in tables for region in table.values()]


# -- between sessions ----------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [8, 96, 40_000])
def test_a_session_never_sees_what_another_one_left(
    node: Node, tmp_path: Path, hidden: int
) -> None:
    made = two_layers(tmp_path, hidden=hidden)
    first = join(node, made)
    run = admit(node, first, made)
    places = [view.nbytes for view in views(run)]
    for view in views(run):
        view[:] = (CANARY * (view.nbytes // len(CANARY) + 1))[: view.nbytes]
    run.release()
    again = admit(node, first, made)  # its own bytes need no protection: proof that they were there
    assert any(CANARY in bytes(view) for view in views(again))
    again.release()
    leave(node, first)
    second = join(node, made)
    run = admit(node, second, made)
    assert [view.nbytes for view in views(run)] == places
    assert not any(any(bytes(view)) for view in views(run))
    run.release()
    leave(node, second)


def memfds() -> Iterator[tuple[int, int]]:
    """Where this process has shared memory of ours mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:genie" in line:
            begin, _, end = line.split()[0].partition("-")
            yield int(begin, 16), int(end, 16)


def canaries() -> int:
    count = 0
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for begin, end in memfds():
            memory.seek(begin)
            left = end - begin
            while left > 0 and (data := memory.read(min(left, MIB))):
                count += data.count(CANARY)
                left -= len(data)
    return count


@pytest.mark.skipif("shm" not in PATHS, reason="the native transports are not built")
def test_rings_of_a_connection_that_is_gone_are_in_no_other() -> None:
    before = canaries()
    a, b = pair("shm")
    with a, b:
        source = CANARY * (MIB // len(CANARY))
        target = bytearray(len(source))
        a.post(a.register(source), b.register(target)).result(timeout=20)
        assert bytes(target) == source
        assert canaries() > before  # it went through shared memory: the search finds it
    c, d = pair("shm")
    with c, d:
        c.post(c.register(b"x" * 64), d.register(bytearray(64))).result(timeout=20)
        assert canaries() == before


# -- pressure ------------------------------------------------------------------------------------


def test_a_run_waits_for_shared_memory_and_nothing_leaks(node: Node, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    session = join(node, made)
    pool = node.core.pools["d0"]
    before = pool.stats()
    hog = pool.allocate(pool.stats().largest_free, owner="somebody else")
    with pytest.raises(GenieError) as caught:
        admit(node, session, made, wait=0.2)
    assert caught.value.code == "GEN0472"
    assert node.core.budget.usage("d0")[0] == 0
    assert pool.stats().refused == before.refused + 1
    got: list[Run] = []
    thread = threading.Thread(target=lambda: got.append(admit(node, session, made, wait=30)))
    thread.start()
    until(lambda: pool.stats().waiting == 1)
    pool.free(hog)
    thread.join(20)
    got[0].release()
    stats = pool.stats()
    assert (stats.used, stats.regions, stats.waiting) == (before.used, before.regions, 0)
    assert stats.waits == before.waits + 2
    device = node.status().devices[0]
    assert device.pool is not None
    assert (device.pool.waits, device.pool.refused) == (stats.waits, stats.refused)
    assert device.pool.used_bytes == stats.used


def test_a_run_that_waits_ends_with_its_session(node: Node, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    session = join(node, made)
    pool = node.core.pools["d0"]
    hog = pool.allocate(pool.stats().largest_free, owner="somebody else")
    errors: list[GenieError] = []

    def wait() -> None:
        with pytest.raises(GenieError) as caught:
            admit(node, session, made, wait=60)
        errors.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: pool.stats().waiting == 1)
    leave(node, session)
    thread.join(20)
    assert [error.code for error in errors] == ["GEN0508"]
    pool.free(hog)
    assert node.core.budget.usage("d0")[0] == 0


def test_a_session_that_never_frees_costs_the_others_time_and_nothing_else(
    tmp_path: Path,
) -> None:
    made = two_layers(tmp_path, hidden=4096)
    needs = made.plan.devices["d0"].needs
    node = embedded_node(
        devices=[f"cpu:memory={needs + needs // 8}B"], state_dir=tmp_path / "state", threads=1
    )
    try:
        greedy, modest = join(node, made), join(node, made)
        admit(node, greedy, made)  # prepared, and never started
        with pytest.raises(GenieError) as caught:
            admit(node, modest, made, wait=0.2)
        assert caught.value.code == "GEN0413"
        leave(node, greedy)
        admit(node, modest, made, wait=20).release()
        leave(node, modest)
        assert node.core.budget.usage("d0")[0] == 0
    finally:
        node.close()


@pytest.mark.slow
def test_many_sessions_share_too_little_memory(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, hidden=4096)
    needs = made.plan.devices["d0"].needs
    daemon = daemons.start(device=f"cpu:memory={needs + needs // 4}B")
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        wanted = session.run({"x": X}).outputs
    wrong: list[object] = []

    def client() -> None:
        try:
            with connect(daemon.endpoint) as session:
                session.install(made.path)
                for _ in range(4):
                    got = session.run({"x": X}, deadline=120.0).outputs
                    if any(got[n].tobytes() != wanted[n].tobytes() for n in wanted):
                        wrong.append(got)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert wrong == []
    until(lambda: status(daemon.endpoint).sessions == 0)
    found = status(daemon.endpoint)
    device = found.devices[0]
    constants = len(made.weights)
    assert device.pool is not None
    assert (device.reserved_bytes, device.pool.regions, device.pool.waiting) == (0, constants, 0)
    assert found.runs == 33
    assert daemon.stop() == 0


def test_constants_wait_for_runs_to_end() -> None:
    spec = DeviceSpec("c0", "cpu", 0, 100)
    budget = Budget({"c0": spec})
    held = budget.reserve({"c0": 80}, time.monotonic())
    with pytest.raises(GenieError) as caught:
        budget.hold_constants("c0", 50, timeout=0.05)
    assert caught.value.code == "GEN0413"
    thread = threading.Thread(target=lambda: budget.hold_constants("c0", 50, timeout=20))
    thread.start()
    budget.release(held)
    thread.join(20)
    assert budget.usage("c0") == (0, 50, 80)


@pytest.mark.parametrize("path", [p for p in ("loopback", "unix", "shm", "tcp") if p in PATHS])
def test_memory_that_is_freed_in_mid_transfer_is_written_no_more(path: str) -> None:
    size = 32 * MIB
    pool = ArenaPool(size, huge=False)
    source = np.full(size, 0xEE, np.uint8)
    sender, receiver = pair(path)
    with sender, receiver:
        mine = sender.register(source)
        ends = set()
        for turn in range(6):
            region = pool.allocate(size, owner=f"s{turn}")
            handle = receiver.register(pool.view(region))
            future = sender.post(mine, handle)
            if turn % 2:
                until(lambda f=future: f.progress() > 0 or f.done(), 20)  # type: ignore[misc]
            receiver.deregister(handle)
            pool.free(region)
            region = pool.allocate(size, owner="next")
            view = pool.view(region)
            error = future.exception(timeout=20)
            ends.add("done" if error is None else error.code)
            # The next owner's memory is zero, and stays so while the rest of the transfer comes.
            assert not np.frombuffer(view, np.uint8).any()
            pool.free(region)
        assert ends <= {"done", "GEN0623"}
        assert "GEN0623" in ends
        # The connection is as good as before.
        target = bytearray(1000)
        sender.post(sender.register(b"y" * 1000), receiver.register(target)).result(timeout=20)
        assert target == b"y" * 1000
    pool.close()


def test_an_arena_that_is_unmapped_under_a_transfer_stays_until_it_has_ended() -> None:
    before = sorted(memfds())
    pool = ArenaPool(4 * MIB, huge=False)
    region = pool.allocate(4 * MIB)
    sender, receiver = pair("loopback")
    with sender, receiver:
        handle = receiver.register(pool.view(region))
        future = sender.post(sender.register(b"z" * (4 * MIB)), handle)
        pool.close()  # the runtime is gone; whoever still writes must not crash the process
        assert future.exception(timeout=20) is None
        receiver.deregister(handle)
        with pytest.raises(TransferError):
            sender.post(sender.register(b"z"), handle).result(timeout=20)
    del sender, receiver, future
    until(lambda: sorted(memfds()) == before)


def test_an_idle_daemon_gives_memory_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie_runtime.node._IDLE", 0.2)
    session = node.open_embedded(hello())
    node._start_reaper()
    pool = node.core.pools["d0"]
    kept = pool.allocate(1000)
    pool.free(pool.allocate(100 * MIB))
    time.sleep(0.8)
    assert pool.stats().reserved >= 100 * MIB  # a session may want it again
    leave(node, session)
    until(lambda: pool.stats().reserved <= 64 * MIB)
    pool.free(kept)


# -- GPU-direct ----------------------------------------------------------------------------------

CPU = DeviceSpec("d0", "cpu", 0, 1 << 30)
GPU = DeviceSpec("d1", "cuda", 0, 1 << 30)


def gpu_machine(root: Path, *have: str) -> Path:
    files = {
        "driver": "sys/module/nvidia/version",
        "module": "sys/module/nvidia_peermem/version",
        "gpudev": "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_gpu_cuda.so.23",
    }
    for name in have:
        path = root / files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


@pytest.mark.parametrize("count", range(4))
def test_what_lacks_for_gpu_direct_is_named_in_order(tmp_path: Path, count: int) -> None:
    names = ("driver", "module", "gpudev")
    lacking = obstacles(gpu_machine(tmp_path, *names[:count]))
    assert len(lacking) == 4 - count
    words = ("no NVIDIA driver", "nvidia_peermem", "librte_gpu_cuda", "no transport of this build")
    assert words[count] in lacking[0]


@pytest.mark.parametrize(
    ("wanted", "devices", "lacking", "mode"),
    [
        ("auto", [CPU], ["a driver"], "none"),
        ("off", [CPU], [], "none"),
        ("auto", [CPU, GPU], ["a driver"], "bounce"),
        ("auto", [CPU, GPU], [], "direct"),
        ("off", [GPU], [], "bounce"),
        ("on", [GPU], [], "direct"),
    ],
)
def test_which_way_to_the_gpu_is_in_force(
    wanted: str, devices: list[DeviceSpec], lacking: list[str], mode: str
) -> None:
    found = choose(wanted, devices, lacking)  # type: ignore[arg-type]
    assert found.mode == mode
    assert found.reason


def test_gpu_direct_that_cannot_be_had_is_refused(snapshot: SnapshotAssertion) -> None:
    texts = []
    for devices, lacking in itertools.product(([CPU], [CPU, GPU]), (["a driver", "a module"], [])):
        if lacking or devices == [CPU]:
            with pytest.raises(GenieError) as caught:
                choose("on", devices, lacking)
            texts.append(str(caught.value))
    assert texts == snapshot


def test_a_daemon_does_not_start_without_the_gpu_direct_it_was_told_to_have(
    daemons: Daemons,
) -> None:
    daemon = daemons.start("d0", "--gpu-direct", "on", wait=False)
    assert daemon.process.wait(30) == 1
    assert "GEN0473" in daemon.log
    assert "--gpu-direct auto" in daemon.log
    assert "Traceback" not in daemon.log


def test_the_status_says_how_bytes_reach_a_gpu_and_how_full_the_pools_are(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start("d0", "--gpu-direct", "auto")
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        session.run({"x": X})
        found = status(daemon.endpoint)
    assert found.gpu_direct is not None
    assert found.gpu_direct.mode == "none"
    pool = found.devices[0].pool
    assert pool is not None
    weights = sum(w.nbytes for w in made.weights.values())
    assert pool.used_bytes == weights
    assert pool.peak_bytes > weights
    assert pool.arena_bytes <= pool.limit_bytes
    assert pool.largest_free_bytes > pool.limit_bytes // 2
    assert pool.fragmentation_ppm < 50_000
    assert found.telemetry["evictions"] == 0
