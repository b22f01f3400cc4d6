"""CUDA graphs: a bound program recorded once and replayed on static buffers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

from genie_runtime.executors.bound import Bound
from genie_runtime.executors.runs import Stop

__all__ = ["Graphs"]

log = logging.getLogger(__name__)

_KEPT_GRAPHS = 256
"""Graphs kept a device, least recently used out: a graph holds its inputs and outputs."""

_KEPT_KEYS = 4096


@dataclass(frozen=True)
class _Graph:
    """`static` are the tensors it reads; those at `moving` are refilled before each replay."""

    graph: torch.cuda.CUDAGraph
    bound: Bound
    moving: tuple[int, ...]
    static: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


class Graphs:
    """The graphs of one device. Calls come under the device's lock, in the run's stream.

    The first call with a key runs eagerly and warms libraries up; the second records, if it can;
    later ones replay. All graphs share one memory pool: they never overlap in time, and what a
    replay leaves in the pool is copied out before the next one starts.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._warm: OrderedDict[Hashable, None] = OrderedDict()

    def call(
        self,
        key: Hashable,
        bound: Bound,
        reads: Sequence[torch.Tensor],
        fixed: Sequence[bool],
        stop: Stop,
    ) -> list[torch.Tensor]:
        """The program's outputs, fresh. `fixed[i]` says that `reads[i]` is the same every time."""
        if bound.controls:
            return bound.run(reads, stop)  # which kernels run depends on data
        if key not in self._warm:
            self._warm[key] = None
            if len(self._warm) > _KEPT_KEYS:
                self._graphs.pop(self._warm.popitem(last=False)[0], None)
            return bound.run(reads, stop)
        entry = self._graphs.get(key)
        if key not in self._graphs or (entry is not None and entry.bound is not bound):
            entry = self._graphs[key] = self._record(key, bound, reads, fixed)
            while len(self._graphs) > _KEPT_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        if entry is None:
            return bound.run(reads, stop)
        for position in entry.moving:
            entry.static[position].copy_(reads[position])
        entry.graph.replay()
        return [output.clone() for output in entry.outputs]

    def _record(
        self, key: Hashable, bound: Bound, reads: Sequence[torch.Tensor], fixed: Sequence[bool]
    ) -> _Graph | None:
        """Record the program; None, with the reason logged, when it cannot be recorded."""
        moving = tuple(i for i, same in enumerate(fixed) if not same)
        static = list(reads)
        for i in moving:
            static[i] = reads[i].clone()
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread is held to what a recording allows: others may be moving data.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs = tuple(bound.run(static))
        except Exception as error:
            cause = error.__cause__ or error
            log.warning("no CUDA graph for %s, it runs eagerly: %s", key, str(cause)[:500])
            return None
        return _Graph(graph, bound, moving, tuple(static), outputs)

    def forget(self, wanted: Callable[[tuple[object, ...]], bool]) -> None:
        """Drop the graphs of these keys, which are tuples."""
        for key in [k for k in self._warm if isinstance(k, tuple) and wanted(k)]:
            del self._warm[key]
            self._graphs.pop(key, None)

    def clear(self) -> None:
        """Drop every graph and what it holds."""
        self._warm.clear()
        self._graphs.clear()
