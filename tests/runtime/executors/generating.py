"""Runs of the small language model on executors: stateful calls, loops, and a ring of devices."""

from __future__ import annotations

import os
import queue
import select
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from genie_runtime.pool import ArenaPool
from genie_runtime.ports import (
    ExecutorPort,
    Failed,
    Finished,
    Generation,
    Ready,
    Region,
    RunRequest,
    Sampled,
    StateUse,
)
from genie_schemas import writer
from genie_schemas.plan import ReturnStep, TransferStep
from genie_schemas.types import parse_type
from genie_schemas.verify.dataflow import type_of
from tests.plans_by_hand import Array, HandMade
from tests.runtime.executors.planning import WAIT, Listener

MEMORY = 1 << 26


class Station:
    """One device of a hand-made plan: an executor that has it installed, and its memory."""

    def __init__(self, executor: ExecutorPort, made: HandMade, device: str) -> None:
        self.executor, self.made, self.device = executor, made, device
        self.pool = ArenaPool(
            MEMORY, arena_bytes=1 << 20, opened=executor.map_arena, closed=executor.unmap_arena
        )
        plan = made.plan
        executor.install(writer.dumps(plan), plan.plan_digest, device)
        loads = [s for s in plan.steps if s.kind == "load" and s.device == device]
        names = {name for step in loads for name in step.reads}
        self.executor.load(
            plan.plan_digest, {name: self.put(made.weights[name]) for name in sorted(names)}
        )
        self._runs = 0

    def put(self, array: Array) -> Region:
        region = self.pool.allocate(array.nbytes)
        self.pool.view(region)[:] = np.ascontiguousarray(array).tobytes()
        return region

    def get(self, region: Region, dtype: str, shape: Sequence[int]) -> Array:
        return np.frombuffer(bytes(self.pool.view(region)), dtype).reshape(shape)

    def request(
        self, entrypoint: str, inputs: Mapping[str, Array], dims: Mapping[str, int], **more: Any
    ) -> RunRequest:
        """A request for an entry point or loop, with regions of this station."""
        self._runs += 1
        plan = self.made.plan
        loop = plan.loops.get(entrypoint)
        parts = (entrypoint,) if loop is None else (loop.entry, loop.body)
        steps = {i for part in parts for i in plan.entrypoints[part].steps}
        here = {
            i.name for p in parts for i in plan.entrypoints[p].inputs if i.device == self.device
        }
        incoming, outgoing, outputs = {}, {}, {}
        for step in plan.steps:
            if step.id not in steps:
                continue
            if isinstance(step, TransferStep) and step.src == self.device:
                outgoing[step.id] = self._region(step.reads[0], dims)
            elif isinstance(step, TransferStep) and step.dst == self.device:
                incoming[step.id] = self._region(step.reads[0], dims)
            elif isinstance(step, ReturnStep) and step.device == self.device and loop is None:
                outputs[step.reads[0]] = self._region(step.reads[0], dims)
        request = RunRequest(
            run_key=f"run-{self._runs}",
            attempt=1,
            plan_digest=plan.plan_digest,
            entrypoint=entrypoint,
            device=self.device,
            dims=dims,
            inputs={n: self.put(a) for n, a in inputs.items() if n in here},
            incoming=incoming,
            outgoing=outgoing,
            outputs=outputs,
        )
        return replace(request, **more)

    def _region(self, name: str, dims: Mapping[str, int]) -> Region:
        return self.pool.allocate(parse_type(type_of(self.made.plan, name) or "").nbytes(dims))

    # -- one device ----------------------------------------------------------------------------

    def prefill(self, inputs: Mapping[str, Array], use: StateUse | None) -> Array:
        """Logits of a prefill, f32[batch, vocabulary]."""
        batch, seq = inputs["input_ids"].shape
        request = self.request("prefill", inputs, {"batch": batch, "seq": seq}, state=use)
        return self._logits(request, batch)

    def decode(self, tokens: Sequence[int], use: StateUse) -> Array:
        """Logits after one more token of each row."""
        array = np.array(tokens, np.int64)
        request = self.request("decode", {"token": array}, {"batch": len(tokens)}, state=use)
        return self._logits(request, len(tokens))

    def _logits(self, request: RunRequest, batch: int) -> Array:
        listener = Listener()
        self.executor.run(request, listener)
        listener.finished()
        (region,) = request.outputs.values()
        return self.get(region, "<f4", (batch, -1))

    def fails(self, request: RunRequest, code: str) -> Failed:
        listener = Listener()
        self.executor.run(request, listener)
        return listener.failed(code)


def generate(
    stations: Sequence[Station],
    inputs: Mapping[str, Array],
    generation: Generation,
    *,
    use: StateUse | None = None,
    wires: Wires | None = None,
) -> Ring:
    """Start the loop `generate` on these stations, which pass transfers on to each other.

    With `wires`, those of the body pass at the word of the executors.
    """
    batch, seq = inputs["input_ids"].shape
    use = use or StateUse("once", 0, keep=False)
    requests = [
        station.request(
            "generate",
            inputs,
            {"batch": batch, "seq": seq},
            state=use,
            generation=generation,
            run_key=f"loop-{station.device}-{id(inputs)}",
        )
        for station in stations
    ]
    if wires is not None:
        requests = [wires.wired(s, r) for s, r in zip(stations, requests, strict=True)]
    ring = Ring(stations, requests, wires)
    for station, request in zip(stations, requests, strict=True):
        station.executor.run(request, ring.listener(station))
    return ring


class Wires:
    """Bells and triggers of the body's transfers, and a thread in the part of the data plane."""

    def __init__(self) -> None:
        self._steps: dict[int, str] = {}
        self._bells: dict[str, int] = {}
        self._stop = os.eventfd(0)
        self._ring: Ring | None = None
        self.carried: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def wired(self, station: Station, request: RunRequest) -> RunRequest:
        """The request with eventfds for the transfers of the body."""
        plan = station.made.plan
        body = plan.entrypoints[plan.loops[request.entrypoint].body].steps
        again = {s.id for s in plan.steps if s.kind == "transfer" and s.id in body}
        bells = {
            step: self._eventfd(os.EFD_SEMAPHORE) for step in request.incoming if step in again
        }
        triggers = {step: self._eventfd(0) for step in request.outgoing if step in again}
        self._bells |= bells
        self._steps |= {trigger: step for step, trigger in triggers.items()}
        return replace(request, bells=bells, triggers=triggers)

    def _eventfd(self, flags: int) -> int:
        return os.eventfd(0, flags | os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def begin(self, ring: Ring) -> None:
        """Carry what the ring's executors have ready."""
        self._ring = ring
        self._thread.start()

    def _main(self) -> None:
        assert self._ring is not None
        watched = select.poll()
        for fd in (self._stop, *self._steps):
            watched.register(fd, select.POLLIN)
        while True:
            for fd, _ in watched.poll():
                if fd == self._stop:
                    return
                assert os.eventfd_read(fd) == 1  # the next turn's begins when this one is over
                step = self._steps[fd]
                self.carried[step] += 1
                self._ring.copy(step)
                os.eventfd_write(self._bells[step], 1)

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join(WAIT)
        for fd in (self._stop, *self._steps, *self._bells.values()):
            os.close(fd)


class Ring:
    """A loop going on: carries bytes between stations as a node does, and collects events."""

    def __init__(
        self,
        stations: Sequence[Station],
        requests: Sequence[RunRequest],
        wires: Wires | None = None,
    ) -> None:
        self.requests = {s.device: r for s, r in zip(stations, requests, strict=True)}
        self._stations = {s.device: s for s in stations}
        self._events: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self.sampled: list[Sampled] = []
        self.deliveries: list[str] = []
        self.first = threading.Event()
        self.told: Counter[str] = Counter()
        self._wires = wires
        if wires is not None:
            wires.begin(self)

    def listener(self, station: Station) -> Any:
        def on_event(event: object) -> None:
            self._events.put((station.device, event))

        return on_event

    def wait(self) -> dict[str, Finished | Failed]:
        """Carry transfers until every station ended; how each did."""
        ended: dict[str, Finished | Failed] = {}
        while len(ended) < len(self.requests):
            device, event = self._events.get(timeout=WAIT)
            match event:
                case Ready(step):
                    self.told[step] += 1
                    if step not in self.requests[device].triggers:
                        self._carry(step)
                case Sampled():
                    self.sampled.append(event)
                    self.first.set()
                case Finished() | Failed():
                    ended[device] = event
                    if isinstance(event, Failed):
                        self.cancel()
        return ended

    def copy(self, step: str) -> TransferStep:
        """Move the bytes of a transfer from one station to the other."""
        made = next(iter(self._stations.values())).made
        move = next(s for s in made.plan.steps if s.id == step)
        assert isinstance(move, TransferStep)
        source, target = self._stations[move.src], self._stations[move.dst]
        data = source.pool.view(self.requests[move.src].outgoing[step])
        target.pool.view(self.requests[move.dst].incoming[step])[:] = data
        # What was sent must not be needed any more: the next turn writes over it.
        data[:] = b"\xff" * len(data)
        return move

    def _carry(self, step: str) -> None:
        move = self.copy(step)
        self.deliveries.append(step)
        self._stations[move.dst].executor.deliver(self.requests[move.dst].run_key, step)

    def cancel(self) -> None:
        for device, station in self._stations.items():
            station.executor.cancel(self.requests[device].run_key)

    def tokens(self) -> list[list[int]]:
        """The tokens of each row, as reported; every station must have ended well."""
        ended = self.wait()
        assert all(isinstance(end, Finished) for end in ended.values()), ended
        first = self.sampled[0].index if self.sampled else 0
        assert [s.index for s in self.sampled] == list(range(first, first + len(self.sampled)))
        return [list(row) for row in zip(*(s.tokens for s in self.sampled), strict=True)]


def dims_of(inputs: Mapping[str, Array]) -> dict[str, int]:
    batch, seq = inputs["input_ids"].shape
    return {"batch": batch, "seq": seq}


def close(a: Array, b: Array) -> bool:
    return bool(torch.allclose(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()), 1e-4, 2e-3))
