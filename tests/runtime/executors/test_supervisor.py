"""Workers killed, stopped, or without what they need: runs fail typed, the rest is restored."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_runtime.arena import Arena
from genie_runtime.ports import DeviceSpec, Failed
from genie_runtime.supervisor import WorkerExecutor
from genie_schemas import writer
from genie_schemas.errors import GenieError
from tests.runtime.executors.books import SQUARE, endless, grinding, lookup, slow
from tests.runtime.executors.planning import WAIT, Book, Listener, Rig, op, r

CPU = DeviceSpec("d0", "cpu", 0, 1 << 30)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerExecutor]:
    made = WorkerExecutor(CPU, 1, log_dir=tmp_path)
    yield made
    made.close(30)


@pytest.fixture
def rig(worker: WorkerExecutor) -> Iterator[Rig]:
    made = Rig(worker)
    yield made
    made.pool.close()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def pid_of(worker: WorkerExecutor) -> int:
    worker.facts(WAIT)
    pid = worker.pid
    assert pid is not None
    return pid


def gone(pid: int) -> bool:
    """Whether a process has ended; one that its new parent has not reaped yet has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(b")")[2].split()[0] in (b"Z", b"X")


def kill(worker: WorkerExecutor) -> None:
    """Kill a worker; returns when its supervisor has noticed."""
    pid = pid_of(worker)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: worker.pid != pid, "nobody notices the death")


def serve(rig: Rig, book: Book) -> None:
    """The lookup plan, installed before, gives its result."""
    got, _ = rig.run(book.plan(), {"ids": torch.tensor([3])}, {"n": 1})
    assert got["rows"].tolist() == [[9.0, 10.0, 11.0]]


def test_a_killed_worker_costs_its_runs_one_attempt_and_nothing_else(
    rig: Rig, worker: WorkerExecutor, snapshot: SnapshotAssertion
) -> None:
    book, long = lookup(), slow(rounds=200)
    rig.install(book.plan(), book)
    rig.install(long.plan(), long, ["d0", "d1"])
    key, computing = grinding(rig, long.plan())
    waiting = Listener()
    rig.executor.run(rig.request(long.plan(), "d1", {}, {}, run_key=key), waiting)
    pid = pid_of(worker)
    os.kill(pid, signal.SIGKILL)
    for listener in (computing, waiting):
        event = listener.failed("GEN0450")
        assert event.retryable
        assert str(event.error) == snapshot
    # Plans and constants are there again without anyone's doing; a new arena, too.
    late = rig.put(torch.zeros(1 << 19))
    serve(rig, book)
    assert pid_of(worker) != pid
    assert worker.restarts == 1
    assert gone(pid)
    rig.pool.free(late)


def test_a_worker_killed_while_idle_is_replaced(rig: Rig, worker: WorkerExecutor) -> None:
    book = lookup()
    rig.install(book.plan(), book)
    for _ in range(2):
        kill(worker)
        serve(rig, book)


@pytest.mark.parametrize("busy", [False, True])
def test_a_stopped_worker_is_found_and_replaced(
    rig: Rig, worker: WorkerExecutor, busy: bool, snapshot: SnapshotAssertion
) -> None:
    book, long = lookup(), slow(rounds=200)
    rig.install(book.plan(), book)
    rig.install(long.plan(), long, ["d0", "d1"])
    if busy:
        _, listener = grinding(rig, long.plan())
    else:
        listener = Listener()
        rig.executor.run(rig.request(long.plan(), "d1", {}, {}), listener)
    pid = pid_of(worker)
    os.kill(pid, signal.SIGSTOP)
    event = listener.failed("GEN0451")
    assert event.retryable
    assert str(event.error) == snapshot
    serve(rig, book)
    assert gone(pid)


def test_a_stopped_worker_does_not_hold_up_whoever_talks_to_it(
    rig: Rig, worker: WorkerExecutor
) -> None:
    """More than a socket takes is sent to a worker that does not read: supervision ends that."""
    book = lookup()
    plan = book.plan()
    rig.install(plan, book)
    big = book.plan(advisory={"why": "x" * (4 << 20)})
    pid = pid_of(worker)
    os.kill(pid, signal.SIGSTOP)
    worker.install(writer.dumps(big), big.plan_digest, "d0")
    serve(rig, book)
    assert gone(pid)


def test_a_kernel_that_runs_on_is_ended_with_its_worker(rig: Rig, worker: WorkerExecutor) -> None:
    """The run fails at the step's deadline; the device is free again soon after."""
    book, long = lookup(), slow(rounds=1, timeout_ms=300, last=endless())
    rig.install(book.plan(), book)
    rig.install(long.plan(), long)
    pid = pid_of(worker)
    _, listener = grinding(rig, long.plan())
    listener.failed("GEN0464")
    eventually(lambda: gone(pid), "the worker goes on with the kernel")
    serve(rig, book)


@pytest.mark.parametrize("why", ["deadline", "cancel"])
def test_a_program_stops_between_two_operators(rig: Rig, worker: WorkerExecutor, why: str) -> None:
    """Nobody wants the rest of a long program: its device is free at once, its worker lives."""
    book = lookup()
    long = slow(rounds=2_000, timeout_ms=400 if why == "deadline" else 600_000)
    rig.install(book.plan(), book)
    rig.install(long.plan(), long)
    serve(rig, book)
    pid = pid_of(worker)
    key, listener = grinding(rig, long.plan())
    if why == "cancel":
        worker.cancel(key)
    listener.failed("GEN0464" if why == "deadline" else "GEN0415")
    serve(rig, book)
    assert pid_of(worker) == pid


def test_an_operator_that_takes_too_much_memory_fails_and_nothing_dies(
    rig: Rig, worker: WorkerExecutor
) -> None:
    """Its result is many times what the plan declares: the allocation itself is refused."""
    book, greedy = lookup(), Book("greedy", inputs=[("x", "f32[4]", "d0")])
    greedy.program(
        "greed",
        "x: f32[4]",
        "y: f32[4]",
        "64",
        op("much", "ones.default", [1 << 30]),
        op("some", "slice.Tensor", r("much"), 0, 0, 4),
        op("y", "add.Tensor", r("some"), r("x")),
    )
    greedy.compute("greed@d0", "greed", "x", "y")
    greedy.step("return@d0", "return", "y")
    greedy.outputs = ["y"]
    rig.install(book.plan(), book)
    rig.install(greedy.plan(), greedy)
    serve(rig, book)
    pid = pid_of(worker)
    listener = Listener()
    worker.run(rig.request(greedy.plan(), "d0", {}, {"x": torch.ones(4)}), listener)
    assert "ones.default" in str(listener.failed("GEN0463").error)
    serve(rig, book)
    assert pid_of(worker) == pid


def test_closing_does_not_wait_for_a_worker_that_comes_up(tmp_path: Path) -> None:
    """It imports torch for seconds and holds nothing: it is ended, and says nothing about it."""
    worker = WorkerExecutor(CPU, 1, log_dir=tmp_path)
    eventually(lambda: worker.pid is not None, "no process is started")
    worker.close(0)
    log = tmp_path / "executor-d0.log"
    assert worker.pid is None
    assert not log.exists() or log.read_text() == ""


def test_a_plan_that_kills_its_worker_is_quarantined_and_others_are_not(
    rig: Rig, worker: WorkerExecutor, snapshot: SnapshotAssertion
) -> None:
    good, bad = lookup(), slow(rounds=500)
    plan = bad.plan()
    rig.install(good.plan(), good)
    rig.install(plan, bad)
    for _ in range(10):
        request, listener = rig.request(plan, "d0", {}, {"x": SQUARE}), Listener()
        worker.run(request, listener)
        event = listener.events.get(timeout=WAIT)
        if isinstance(event, Failed):
            break
        time.sleep(0.1)  # most likely it computes by now; else this death does not count
        os.kill(pid_of(worker), signal.SIGKILL)
        listener.failed("GEN0450")
        serve(rig, good)
    assert isinstance(event, Failed)
    assert event.error.code == "GEN0452"
    assert not event.retryable
    assert str(event.error).replace(plan.plan_digest[:23], "<digest>") == snapshot
    assert worker.restarts >= 3
    for act in (
        lambda: worker.install(writer.dumps(plan), plan.plan_digest, "d0"),
        lambda: worker.load(plan.plan_digest, {}),
    ):
        with pytest.raises(GenieError) as caught:
            act()
        assert caught.value.code == "GEN0452"
    serve(rig, good)
    # Uninstalled and installed again, it may run: its author may have mended it.
    worker.uninstall(plan.plan_digest)
    worker.install(writer.dumps(plan), plan.plan_digest, "d0")
    key, listener = grinding(rig, plan)
    worker.cancel(key)
    worker.close(0)
    listener.failed("GEN0415")


def test_runs_started_before_the_worker_is_up_wait_for_it(rig: Rig, worker: WorkerExecutor) -> None:
    book = lookup()
    plan = book.plan()
    first, second = Listener(), Listener()
    dropped = rig.request(plan, "d0", {"n": 1}, {"ids": torch.tensor([1])})
    worker.run(dropped, first)
    worker.cancel(dropped.run_key)
    first.failed("GEN0415")
    kept = rig.request(plan, "d0", {"n": 1}, {"ids": torch.tensor([1])})
    worker.run(kept, second)
    second.failed("GEN0455")  # nobody installed the plan


def test_what_arrives_before_a_worker_has_the_run_is_not_lost(
    rig: Rig, worker: WorkerExecutor
) -> None:
    book = slow(rounds=1)
    plan = book.plan()
    rig.install(plan, book, ["d1"])
    request, listener = rig.request(plan, "d1", {}, {}), Listener()
    rig.pool.view(request.incoming["hint@d0->d1"])[:] = bytes(range(16))
    kill(worker)
    worker.run(request, listener)
    worker.deliver(request.run_key, "hint@d0->d1")
    listener.finished()
    assert bytes(rig.pool.view(request.outputs["hint.1"])) == bytes(range(16))


def test_a_device_that_does_not_exist_is_told_to_all_who_wait(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    worker = WorkerExecutor(DeviceSpec("g0", "cuda", 99, 1 << 30), 1, log_dir=tmp_path)
    book = lookup()
    listener = Listener()
    rig = Rig(worker)
    worker.run(rig.request(book.plan(), "d0", {"n": 1}, {"ids": torch.tensor([1])}), listener)
    assert not listener.failed("GEN0468").retryable
    with pytest.raises(GenieError) as caught:
        worker.facts(WAIT)
    text = str(caught.value).partition("\n  cause")[0]
    assert text == snapshot
    worker.close(30)
    rig.pool.close()


def test_a_worker_that_cannot_start_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch/__init__.py").write_text("raise ImportError('no torch here')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    worker = WorkerExecutor(CPU, 1, log_dir=tmp_path / "logs")
    listener = Listener()
    rig = Rig(worker)
    worker.run(rig.request(lookup().plan(), "d0", {"n": 1}, {"ids": torch.tensor([1])}), listener)
    assert listener.failed("GEN0453").retryable
    with pytest.raises(GenieError) as caught:
        worker.install("{}", "sha256:" + "0" * 64, "d0")
    assert str(caught.value) == snapshot
    assert "no torch here" in (tmp_path / "logs/executor-d0.log").read_text()
    worker.close(30)
    # No interpreter at all is told the same way.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    worker = WorkerExecutor(CPU, 1)
    with pytest.raises(GenieError) as caught:
        worker.facts(WAIT)
    assert caught.value.code == "GEN0453"
    worker.close(30)
    rig.pool.close()


def test_waiting_for_a_worker_ends_in_time(worker: WorkerExecutor) -> None:
    with pytest.raises(GenieError) as caught:
        worker.facts(0)
    assert caught.value.code == "GEN0453"


def test_an_arena_that_is_not_sealed_ends_the_worker_not_the_daemon(
    worker: WorkerExecutor, tmp_path: Path
) -> None:
    fd = os.memfd_create("unsealed")
    os.ftruncate(fd, 4096)
    pid = pid_of(worker)
    bad = Arena(77, os.dup(fd), 4096, mmap.mmap(fd, 4096), False)
    os.close(fd)
    worker.map_arena(bad)
    eventually(lambda: gone(pid), "the worker maps what may be cut off")
    worker.unmap_arena(77)
    bad.close()
    assert "GEN0471" in (tmp_path / "executor-d0.log").read_text()
    worker.facts(WAIT)


def test_nothing_is_left_after_closing(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("genie-")]

    before = descriptors(), threads()
    for early in (True, False):
        worker = WorkerExecutor(CPU, 1, log_dir=tmp_path)
        rig = Rig(worker)
        pid = None
        if not early:
            book = lookup()
            rig.install(book.plan(), book)
            serve(rig, book)
            kill(worker)
            serve(rig, book)
            pid = pid_of(worker)
        worker.close(30)
        worker.close(30)
        rig.pool.close()
        assert pid is None or gone(pid)
        assert worker.pid is None
    del rig, worker
    assert (descriptors(), threads()) == before


ORPHAN = """
import sys, time
from pathlib import Path
from genie_runtime.ports import DeviceSpec
from genie_runtime.supervisor import WorkerExecutor
worker = WorkerExecutor(DeviceSpec("d0", "cpu", 0, 1 << 30), 1, log_dir=Path(sys.argv[1]))
if sys.argv[2] == "up":
    worker.facts(60)
while worker.pid is None:
    time.sleep(0.01)
print(worker.pid, "torch" in sys.modules, flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("when", ["up", "starting"])
def test_a_worker_ends_with_its_supervisor(tmp_path: Path, when: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path), when], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        pid, has_torch = supervisor.stdout.readline().split()
        assert has_torch == "False"
        supervisor.kill()
        eventually(lambda: gone(int(pid)), "the worker outlives its supervisor")
