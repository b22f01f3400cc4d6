"""Memory outlives the threads that use it, however a program lets go of its managers."""

from __future__ import annotations

import gc
import os
import weakref

import numpy as np
import pytest

from genie_transport.testing import PATHS, pair

NATIVE = ("shm", "tcp")


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("path", NATIVE)
def test_memory_stays_as_long_as_its_transport(path: str) -> None:
    if path not in PATHS:
        pytest.skip("the native transports are not built")
    before = threads()
    freed: list[int] = []
    # Arrays, because the collector does not track them: their end is seen when it happens, and
    # not when the cycle that holds them is found.
    source, target = (np.ones(16 << 20, dtype=np.uint8) for _ in range(2))
    for buffer in (source, target):
        weakref.finalize(buffer, lambda: freed.append(threads()))
    a, b = pair(path)
    assert threads() > before
    a.post(a.register(source), b.register(target))
    held = [a._transport, b._transport]
    del a, b, source, target, buffer
    gc.collect()
    assert freed == []
    while held:
        held.pop()
        gc.collect()
    # Each buffer went after its own side's thread had ended.
    assert sorted(freed) in ([before, before], [before, before + 1])
    assert threads() == before
