"""What can be registered, without a copy, and what is refused."""

from __future__ import annotations

import gc
import mmap
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie_transport import TransferError, TransferManager
from tests.transport.support import WAIT, code_of

torch = pytest.importorskip("torch")


@pytest.fixture
def manager() -> Iterator[TransferManager]:
    with TransferManager.open("loopback") as opened:
        yield opened


def moved(manager: TransferManager, source: object, target: object) -> None:
    assert manager.post(manager.register(source), manager.register(target)).result(WAIT) >= 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        lambda: np.arange(5).astype("datetime64[ns]"),  # no buffer protocol
        lambda: np.zeros((0, 3)),
        lambda: np.zeros((0, 3), dtype="datetime64[ns]"),
        lambda: np.array(7.5),
        lambda: np.arange(24).reshape(2, 12)[1:, :],
    ],
)
def test_numpy(manager: TransferManager, make: Any) -> None:
    source = make()
    target = np.zeros_like(source)
    moved(manager, source, target)
    assert np.array_equal(source, target)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
        lambda: torch.arange(24, dtype=torch.float32).to(torch.bfloat16),
        lambda: torch.arange(8.0).to(torch.float8_e4m3fn),
        lambda: torch.tensor([True, False]),
        lambda: torch.tensor(3.5),
        lambda: torch.zeros(0, 4),
        lambda: torch.arange(24).reshape(2, 12)[1],  # begins within its storage
        lambda: torch.arange(4).to(torch.complex64),
        lambda: torch.arange(6).reshape(1, 6, 1).transpose(0, 2),  # strides of size 1 are free
    ],
)
def test_cpu_tensors(manager: TransferManager, make: Any) -> None:
    source = make()
    target = torch.zeros_like(source)
    moved(manager, source, target)
    assert torch.equal(source.reshape(-1).view(torch.uint8), target.reshape(-1).view(torch.uint8))


def test_bytes_like(manager: TransferManager) -> None:
    with mmap.mmap(-1, 8) as mapped:
        handle = manager.register(mapped)
        assert manager.post(manager.register(b"12345678"), handle).result(WAIT) == 8
        assert mapped[:] == b"12345678"
        target = bytearray(4)
        part = memoryview(mapped)[2:6]
        moved(manager, part, target)
        assert target == b"3456"
        manager.close()
        part.release()  # leaving the block would fail if the manager had not let go


def test_read_only_arrays_are_sources_only(manager: TransferManager) -> None:
    for array in (np.arange(4), np.arange(4).astype("datetime64[D]")):
        array.flags.writeable = False
        target = np.zeros_like(array)
        moved(manager, array, target)
        assert np.array_equal(array, target)
        handle = manager.register(array)
        assert code_of(manager.post(manager.register(target), handle)) == "GEN0626"


def test_the_owner_lives_as_long_as_the_registration(manager: TransferManager) -> None:
    class Owned(np.ndarray[Any, np.dtype[np.uint8]]):
        """Arrays that can be watched."""

    array = np.zeros(16, np.uint8).view(Owned)
    alive = weakref.ref(array)
    handle = manager.register(array)
    del array
    gc.collect()
    assert alive() is not None
    manager.deregister(handle)
    gc.collect()
    assert alive() is None


REFUSED: dict[str, Callable[[], Any]] = {
    "strided": lambda: np.zeros((4, 4))[:, ::2],
    "transposed": lambda: np.zeros((3, 4)).T,
    "strided-datetime": lambda: np.zeros((4, 4), "datetime64[s]")[:, ::2],
    "strided-tensor": lambda: torch.zeros(4, 4)[:, ::2],
    "channels-last": lambda: torch.zeros(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "gradient": lambda: torch.zeros(2, requires_grad=True),
    "sparse": lambda: torch.zeros(2, 2).to_sparse(),
    "meta": lambda: torch.zeros(2, device="meta"),
    "text": lambda: "text",
    "list": lambda: [1, 2],
    "none": lambda: None,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(manager: TransferManager, snapshot: SnapshotAssertion, name: str) -> None:
    with pytest.raises(TransferError) as caught:
        manager.register(REFUSED[name]())
    error = caught.value.to_genie_error()
    # What torch says about its tensors is torch's to word.
    shown = error.code if name in ("gradient", "sparse", "meta") else str(error)
    assert shown == snapshot
    assert error.remedy


def test_only_host_memory(manager: TransferManager) -> None:
    with pytest.raises(TransferError, match=r"GEN0621.*cuda:0"):
        manager.register(bytearray(4), device="cuda:0")


def test_registering_needs_no_torch() -> None:
    """Importing the package, registering and moving bytes leaves heavy modules alone."""
    import subprocess

    code = (
        "import sys, genie_transport.testing as t\n"
        "a, b = t.pair('unix')\n"
        "a.post(a.register(b'x'), b.register(bytearray(1))).result(20)\n"
        "a.close(); b.close()\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'grpc', 'asyncio'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
