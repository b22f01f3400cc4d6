"""Fixtures of the executors' tests: every port over every kind of device."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.amber import AmberSnapshotExtension
from syrupy.location import PyTestLocation
from syrupy.types import SnapshotIndex

from genie_runtime.executors.inprocess import InProcessExecutor
from genie_runtime.ports import DeviceSpec, ExecutorPort
from genie_runtime.supervisor import WorkerExecutor
from tests.runtime.executors.planning import Rig

PORTS = [
    pytest.param(("inprocess", "cpu"), id="inprocess-cpu"),
    pytest.param(("worker", "cpu"), id="worker-cpu"),
    pytest.param(("inprocess", "cuda"), id="inprocess-cuda", marks=pytest.mark.cuda),
    pytest.param(("worker", "cuda"), id="worker-cuda", marks=pytest.mark.cuda),
]
MEMORY = 1 << 30

MakeExecutor = Callable[..., ExecutorPort]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Eager runs with as many threads as the executors under test: other counts, other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which executor, on which kind of device."""
    kind: tuple[str, str] = request.param
    if kind[1] == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return kind


@pytest.fixture
def make_executor(port: tuple[str, str], tmp_path: Path) -> Iterator[MakeExecutor]:
    """Make executors of the kind under test; they are closed at the end."""
    with ExitStack() as stack:

        def make(memory: int = MEMORY, name: str = "here") -> ExecutorPort:
            kind, device = port
            spec = DeviceSpec(name, "cuda" if device == "cuda" else "cpu", 0, memory)
            executor: ExecutorPort
            if kind == "worker":
                executor = WorkerExecutor(spec, 1, log_dir=tmp_path)
            else:
                executor = InProcessExecutor(spec, 1)
            stack.callback(executor.close, 30)
            return executor

        yield make


class _OnePerTest(AmberSnapshotExtension):
    """Every executor must say the same: one snapshot for all of them."""

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        name: str = super().get_snapshot_name(test_location=test_location, index=index)
        return re.sub(r"\[(inprocess|worker)-(cpu|cuda)\]", "", name)


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(_OnePerTest)


@pytest.fixture
def rig(make_executor: MakeExecutor) -> Iterator[Rig]:
    made = Rig(make_executor())
    yield made
    made.pool.close()
