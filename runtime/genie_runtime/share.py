"""One device's share of a run: its memory, its attempts, and what has reached it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genie_runtime.arena import ALIGNMENT, ArenaPool
from genie_runtime.plans import Share, size_of
from genie_runtime.ports import ExecutorPort, OnEvent, Region, RunRequest, RunStats

State = Literal["waiting", "running", "backoff", "finished"]


@dataclass
class ShareRun:
    """Regions of a share and the state of its present attempt.

    Inputs and incoming transfers are kept for the whole run, so that a retry has the same bytes;
    outgoing transfers and outputs are private to an attempt.
    """

    share: Share
    executor: ExecutorPort
    pool: ArenaPool
    owner: str
    run_key: str
    dims: Mapping[str, int]
    io_limit: int
    state: State = "waiting"
    attempt: int = 0
    inputs: dict[str, Region] = field(default_factory=dict)
    incoming: dict[str, Region] = field(default_factory=dict)
    outgoing: dict[str, Region] = field(default_factory=dict)
    outputs: dict[str, Region] = field(default_factory=dict)
    lacking: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    stats: list[RunStats] = field(default_factory=list)
    restart_at: float = 0.0
    _held: list[Region] = field(default_factory=list)

    def reserve(self) -> None:
        """Allocate what peers and the client write into. Raises GEN0470, GEN0472 or GEN0511."""
        for name, kind in self.share.inputs.items():
            self.inputs[name] = self._allocate(size_of(kind, self.dims, self.io_limit))
        for step, hop in self.share.incoming.items():
            self.incoming[step] = self._allocate(size_of(hop.type, self.dims, self.io_limit))
        self._reserve_private()
        # Nothing travels for an empty value: it is there from the start.
        self.lacking = {name for name, region in self.inputs.items() if region.length}
        self.delivered = {step for step, region in self.incoming.items() if not region.length}

    def rewind(self, run_key: str) -> None:
        """Make ready for another run in the same regions, the last one having ended well."""
        self.run_key = run_key
        self.state = "waiting"
        self.attempt = 0
        self.lacking = set()
        self.delivered = {step for step, region in self.incoming.items() if not region.length}
        self.sent = set()
        self.stats = []

    def held_bytes(self) -> int:
        """Bytes of all its regions, as the pool counts them."""
        return sum(max(-(-region.length // ALIGNMENT), 1) * ALIGNMENT for region in self._held)

    def _reserve_private(self) -> None:
        for step, hop in self.share.outgoing.items():
            if step not in self.outgoing or step in self.sent:
                self.outgoing[step] = self._allocate(size_of(hop.type, self.dims, self.io_limit))
        for value, kind in self.share.outputs.items():
            self.outputs[value] = self._allocate(size_of(kind, self.dims, self.io_limit))

    def _allocate(self, nbytes: int) -> Region:
        region = self.pool.allocate(nbytes, owner=self.owner)
        self._held.append(region)
        return region

    @property
    def key(self) -> str:
        """What the executor knows the present attempt by."""
        return f"{self.run_key}/{self.share.device}/{self.attempt}"

    def start(self, plan_digest: str, entrypoint: str, on_event: OnEvent) -> None:
        """Begin the next attempt. Raises GenieError when the executor cannot take it."""
        self.attempt += 1
        if self.attempt > 1:
            self._reserve_private()
        self.state = "running"
        request = RunRequest(
            run_key=self.key,
            attempt=self.attempt,
            plan_digest=plan_digest,
            entrypoint=entrypoint,
            device=self.share.device,
            dims=dict(self.dims),
            inputs=self.inputs,
            incoming=self.incoming,
            outgoing=dict(self.outgoing),
            outputs=dict(self.outputs),
        )
        self.executor.run(request, on_event)
        for step in sorted(self.delivered):
            self.executor.deliver(self.key, step)

    def deliver(self, step: str) -> None:
        """The bytes of an incoming transfer are in their region."""
        self.delivered.add(step)
        if self.state == "running":
            self.executor.deliver(self.key, step)

    def view(self, region: Region) -> memoryview:
        """The bytes of one of this share's regions."""
        return self.pool.view(region)

    def free(self) -> None:
        """Give every region back. Nobody may use them any more."""
        held, self._held = self._held, []
        for region in held:
            self.pool.free(region)
