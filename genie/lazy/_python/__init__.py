"""The recorder in Python, for where the extension `_lazy` is not built.

It offers what the extension does (`_lazy.pyi`), so that the reader of traces, the plan maker, the
runner and the host's part are the same for both; only recording an operator takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from genie.lazy._python import device, operators
from genie.lazy._python import tensor as lazy
from genie.lazy._python.recorder import SHAPES, STATE, TRACE, Callbacks
from genie.lazy._python.tensor import LOCK, is_lazy, store_of
from genie.lazy._python.trace import Taken

__all__ = [
    "Taken",
    "client_bytes",
    "counts",
    "describe",
    "handle",
    "idle",
    "layout",
    "peek",
    "pending_ops",
    "register_operators",
    "set_module",
    "start",
    "take",
    "take_dropped",
    "trace_bytes",
]

register_operators = device.register_operators


def start(
    fetch: Callable[[list[Tensor], str], list[Tensor]],
    upload: Callable[[Tensor], int],
    host: Callable[[str, str, list[Any]], tuple[Any, ...]],
    flush: Callable[[], None],
    allowed: set[str],
) -> None:
    """Begin: what talks to a session, and the operators that plans may name."""
    STATE.callbacks = Callbacks(fetch, upload, host, flush)
    operators.allow(allowed)
    device.register_device()


def take(fetch: Sequence[Tensor]) -> Taken:
    """End the trace: what is still needed of it is kept, `fetch` comes back to the client."""
    with LOCK:
        return TRACE.take(fetch)


def peek(fetch: Sequence[Tensor]) -> Taken:
    """The trace so far with `fetch` at its end; it goes on."""
    with LOCK:
        return TRACE.peek(fetch)


def take_dropped() -> list[int]:
    """Handles of kept tensors that no storage names any more, since the last call."""
    with LOCK:
        found = lazy.dropped[:]
        lazy.dropped.clear()
        return found


def idle() -> bool:
    """Whether nothing waits to be computed."""
    return not TRACE.ops


def pending_ops() -> int:
    """Operators that wait to be computed."""
    return TRACE.ops


def set_module(number: int) -> None:
    """The module that what follows belongs to."""
    TRACE.module = number


def describe(entry: int) -> tuple[Any, ...]:
    """Operator, kinds, literals, results, lengths of lists, and writes of an entry."""
    return SHAPES.entries[entry].described()


def layout(number: int) -> tuple[int, list[int], list[int], int]:
    """c10::ScalarType, sizes, strides and offset of a layout."""
    return TRACE.layout(number).described()


def counts() -> dict[str, int]:
    """What was recorded since the program began."""
    return {
        "ops_intercepted": STATE.ops,
        "shape_cache_hits": SHAPES.hits,
        "shape_cache_misses": SHAPES.misses,
        "shape_cache_entries": len(SHAPES.entries),
    }


def trace_bytes() -> int:
    """Bytes that the trace takes."""
    return TRACE.nbytes()


def handle(tensor: Tensor) -> int:
    """Under which number the device keeps a tensor's memory; 0 where it does not."""
    with LOCK:
        return store_of(tensor).handle if is_lazy(tensor) else 0


def client_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's content that are here: those of a small one that has not travelled."""
    host = store_of(tensor).host
    return 0 if host is None else host.nbytes
