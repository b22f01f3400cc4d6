"""Arenas: views without a copy, read in place by a peer that they are shared with, freed."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import GenieError
from genie_transport import Arena
from genie_transport.testing import PATHS, pair

pytestmark = pytest.mark.skipif("shm" not in PATHS, reason="the native transports are not built")

MIB = 1 << 20


def mapped(nbytes: int) -> int:
    """How often this process has an arena of that size mapped (rings are arenas too)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "memfd:genie-arena" in line]
    return sum(int(end, 16) - int(begin, 16) == nbytes for begin, end in spans)


@pytest.mark.parametrize("nbytes", [1, 4096, 3 * MIB + 5])
def test_every_view_shows_the_same_bytes(nbytes: int) -> None:
    with Arena(nbytes, huge=False) as arena:
        assert arena.view.nbytes == arena.nbytes == nbytes
        assert not any(arena.view)
        whole = arena.array("u1", (nbytes,))
        whole[:] = np.random.default_rng(1).integers(0, 256, nbytes, np.uint8)
        tensor = torch.from_dlpack(arena)  # type: ignore[attr-defined]
        assert tensor.data_ptr() == whole.ctypes.data
        assert bytes(arena.view) == tensor.numpy().tobytes()
        tensor[0] = 77
        assert arena.view[0] == 77


def test_arrays_lie_where_they_are_put() -> None:
    with Arena(8192) as arena:
        arena.array("<f4", (4, 8), offset=128)[:] = 2.5
        assert np.frombuffer(arena.view[128:256], "<f4").tolist() == [2.5] * 32
        assert not any(arena.view[256:])
        for shape, offset in (((2049,), 0), ((1,), 8189), ((-1,), 0), ((1,), -4), ((1 << 60,), 0)):
            with pytest.raises(ValueError, match="leave the arena"):
                arena.array("<f4", shape, offset)


@pytest.mark.parametrize("path", PATHS)
def test_transfers_from_a_shared_arena(path: str) -> None:
    size = 16 * MIB + 4096
    sender, receiver = pair(path)
    arena = Arena(size, huge=False)
    with sender, receiver, arena:
        source = arena.array("u1", (16 * MIB,))
        target = np.zeros_like(source)
        mine, theirs = sender.register(source), receiver.register(target)
        assert sender.share(arena) is (path == "shm")
        assert sender.share(arena) is (path == "shm")  # once is enough, twice does no harm
        for seed in range(3):
            source[:] = np.random.default_rng(seed).integers(0, 256, source.size, np.uint8)
            sender.post(mine, theirs).result(timeout=30)
            assert (target == source).all()
        # The peer, which is in this process too, has mapped it: the bytes were read in place.
        assert mapped(size) == (2 if path == "shm" else 1)
        part = target[:100].copy()
        sender.post(mine.part(5 * MIB + 3, 100), theirs.part(0, 100)).result(timeout=30)
        assert (target[:100] == source[5 * MIB + 3 :][:100]).all()
        assert (part != target[:100]).any()
    del source, mine, theirs, target, part, sender, receiver
    gc.collect()
    assert mapped(size) == 0


def test_memory_goes_with_the_last_user() -> None:
    size = MIB + 4096
    arena = Arena(size, huge=False)
    array = arena.array("u1", (10,))
    arena.close()
    arena.close()
    array[:] = 9
    assert mapped(size) == 1
    assert array.tolist() == [9] * 10
    del array
    gc.collect()
    assert mapped(size) == 0
    with Arena(MIB), pytest.raises(GenieError):
        _ = arena.view


def arena_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, or another thread's
            if "genie-arena" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
    return found


def test_nobody_else_can_write_it() -> None:
    before = arena_descriptors()
    arena = Arena(MIB, huge=False)
    (descriptor,) = arena_descriptors() - before
    code = (
        f"import mmap, sys\n"
        f"try:\n    mmap.mmap({descriptor}, 4096)\n"
        f"except PermissionError:\n    sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[descriptor], check=False)
    assert done.returncode == 3
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    arena.close()


def test_what_cannot_be_had_is_a_typed_error(snapshot: SnapshotAssertion) -> None:
    texts = []
    closed = Arena(4096)
    closed.close()
    a, b = pair("loopback")
    with a, b:
        for call in (
            lambda: Arena(0),
            lambda: Arena(-5),
            lambda: Arena(1 << 62),
            lambda: closed.view,
            lambda: a.share(closed),
        ):
            with pytest.raises(GenieError) as caught:
                call()
            texts.append(str(caught.value))
    assert texts == snapshot
