"""Memory outlives the threads that use it, however a program lets go of its managers."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

from genie_transport.testing import PATHS, pair
from tests.transport.support import WAIT

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


@pytest.mark.parametrize("path", NATIVE)
def test_a_program_may_end_in_the_middle_of_a_transfer(path: str) -> None:
    program = f"""
    from genie_transport.testing import PATHS, pair
    assert {path!r} in PATHS, "not built"
    a, b = pair({path!r})
    data, there = bytearray(64 << 20), bytearray(64 << 20)
    future = a.post(a.register(data), b.register(there))
    print("posted", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "posted\n", "")
