"""Values in regions that are assembled out of scattered pages: same bits, also after a restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genie_runtime.executors.bounce import Bounce
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import DeviceSpec, ExecutorPort
from genie_runtime.supervisor import WorkerExecutor
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.planning import WAIT, Rig
from tests.runtime.executors.test_running import layers, layers_eager, same, uniform
from tests.runtime.executors.test_supervisor import eventually, gone

KIB = 1 << 10
MIB = 1 << 20


def scattered(executor: ExecutorPort) -> Rig:
    """A rig whose pool has no two free pages of an arena side by side."""
    rig = Rig(executor)
    rig.pool = ArenaPool(
        16 * MIB,
        arena_bytes=4 * MIB,
        huge=False,
        opened=executor.map_arena,
        closed=executor.unmap_arena,
    )
    pages = [rig.pool.allocate(16 * KIB) for _ in range(16 * MIB // (16 * KIB))]
    for region in pages[::2]:
        rig.pool.free(region)
    return rig


def test_scattered_memory_gives_the_same_bits(
    make_executor: MakeExecutor, port: tuple[str, str]
) -> None:
    where = torch.device("cuda", 0) if port[1] == "cuda" else torch.device("cpu")
    rig = scattered(make_executor())
    book = layers(width=512, depth=2)
    plan = book.plan()
    rig.install(plan, book)
    assert rig.pool.stats().assembled >= 2  # the weights
    for batch in (8, 1):
        x = uniform(batch, 512, seed=batch)
        got, _ = rig.run(plan, {"x": x}, {"batch": batch})
        assert same(got["h1"], layers_eager(book, x, where))
    assert rig.pool.stats().assembled >= 2
    rig.pool.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerExecutor]:
    made = WorkerExecutor(DeviceSpec("d0", "cpu", 0, 1 << 30), 1, log_dir=tmp_path)
    yield made
    made.close(30)


def test_a_worker_that_is_started_again_gets_the_same_pages(worker: WorkerExecutor) -> None:
    rig = scattered(worker)
    book = layers(width=512, depth=2)
    plan = book.plan()
    rig.install(plan, book)
    x = uniform(4, 512)
    before, _ = rig.run(plan, {"x": x}, {"batch": 4})
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: worker.pid != pid, "nobody notices the death")
    worker.facts(WAIT)
    after, _ = rig.run(plan, {"x": x}, {"batch": 4})
    assert torch.equal(after["h1"], before["h1"])
    assert gone(pid)
    rig.pool.close()


def test_parts_that_a_worker_does_not_have_end_it_and_not_the_daemon(
    worker: WorkerExecutor,
) -> None:
    rig = scattered(worker)
    large = rig.pool.allocate(64 * KIB)
    assert rig.pool.stats().assembled == 1
    pid = worker.pid
    worker.unmap_arena(rig.pool.arenas()[0].id)  # one of its parts lies there

    class Wrong:
        id, fd, size, parts = 10**6, -1, 4096, ((rig.pool.arenas()[0].id, 0, 4096),)

    worker.map_arena(Wrong())  # type: ignore[arg-type]
    eventually(lambda: worker.pid != pid, "the worker maps what is not there")
    worker.unmap_arena(Wrong.id)
    rig.pool.free(large)
    rig.pool.close()


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("nbytes", [0, 1, 4096, 4097, 5 * 4096, 100_003])
def test_bytes_survive_the_way_through_two_buffers(where: str, nbytes: int) -> None:
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    bounce = Bounce(torch.device(where), piece=4096)
    generator = torch.Generator().manual_seed(nbytes)
    source = torch.randint(0, 256, (nbytes,), generator=generator, dtype=torch.uint8)
    for _ in range(2):  # the second time the buffers hold the first one's bytes
        value = torch.zeros(nbytes, dtype=torch.uint8, device=where)
        bounce.to_device(source, value)
        back = torch.zeros(nbytes, dtype=torch.uint8)
        bounce.to_host(value, back)
        assert torch.equal(back, source)
        source = source.flip(0).contiguous()
