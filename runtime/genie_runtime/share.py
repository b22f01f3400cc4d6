"""One device's share of a run: its memory, its attempts, and what has reached it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genie_runtime.plans import Share, size_of
from genie_runtime.pool import ArenaPool, held_bytes
from genie_runtime.ports import (
    ExecutorPort,
    Generation,
    OnEvent,
    Region,
    RunRequest,
    RunStats,
    StateUse,
)
from genie_schemas.errors import GenieError
from genie_schemas.types import TensorType

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
    lent: Mapping[str, Region] = field(default_factory=dict)
    """Inputs that lie in memory of the session's, which is not this run's to free."""
    uses: StateUse | None = None
    """The state that it reads or moves on."""
    generation: Generation | None = None
    """How its loop samples."""
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
    bells: dict[str, int] = field(default_factory=dict)
    triggers: dict[str, int] = field(default_factory=dict)
    """Eventfds of transfers that pass without our word; see `RunRequest`."""
    _held: list[Region] = field(default_factory=list)

    def sizes(self) -> list[int]:
        """Bytes of every region that the run begins with, for `assign`. Raises GEN0511."""
        return [nbytes for group in self._wanted() for nbytes in group.values()]

    def assign(self, regions: Sequence[Region]) -> None:
        """Take the regions of `sizes`: what peers and the client write into, and an attempt's."""
        tables = (self.inputs, self.incoming, self.outgoing, self.outputs)
        self._assign(regions, self._wanted(), tables)
        # Nothing travels for an empty value: it is there from the start.
        self.lacking = {name for name, region in self.inputs.items() if region.length}
        self.inputs.update(self.lent)
        self.delivered = {step for step, region in self.incoming.items() if not region.length}

    def _wanted(self) -> tuple[dict[str, int], ...]:
        own = {name: kind for name, kind in self.share.inputs.items() if name not in self.lent}
        inputs = {name: self._size(kind) for name, kind in own.items()}
        incoming = {step: self._size(hop.type) for step, hop in self.share.incoming.items()}
        return inputs, incoming, *self._private()

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
        return sum(held_bytes(region.length) for region in self._held)

    def _private(self) -> tuple[dict[str, int], dict[str, int]]:
        """Sizes of what belongs to one attempt: outgoing transfers by step, outputs by value."""
        hops = {step: hop for step, hop in self.share.outgoing.items() if self._anew(step)}
        outgoing = {step: self._size(hop.type) for step, hop in hops.items()}
        return outgoing, {value: self._size(kind) for value, kind in self.share.outputs.items()}

    def _anew(self, step: str) -> bool:
        """Whether the next attempt may not have the region of an outgoing transfer as it is."""
        return step not in self.outgoing or step in self.sent

    def _size(self, kind: TensorType) -> int:
        return size_of(kind, self.dims, self.io_limit)

    def _assign(
        self,
        regions: Sequence[Region],
        wanted: Sequence[Mapping[str, int]],
        tables: Sequence[dict[str, Region]],
    ) -> None:
        self._held.extend(regions)
        found = iter(regions)
        for group, table in zip(wanted, tables, strict=True):
            table.update(zip(group, found, strict=False))

    @property
    def key(self) -> str:
        """What the executor knows the present attempt by."""
        return f"{self.run_key}/{self.share.device}/{self.attempt}"

    def start(self, plan_digest: str, entrypoint: str, on_event: OnEvent) -> None:
        """Begin the next attempt. Raises GenieError when the executor cannot take it.

        GEN0472, for a further attempt, means that its memory is not there yet: try again later.
        """
        if self.attempt:
            private = self._private()
            sizes = [nbytes for group in private for nbytes in group.values()]
            # Others wait for what this run holds, so it may not wait for them.
            regions = self.pool.allocate_all(sizes, owner=self.owner, ahead=True)
            self._assign(regions, private, (self.outgoing, self.outputs))
        self.attempt += 1
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
            state=self.uses,
            generation=self.generation,
            bells=self.bells,
            triggers=self.triggers,
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

    def take(self, value: str) -> Region:
        """Hand over the region of an output: it is no longer this run's."""
        region = self.outputs.pop(value)
        self._held.remove(region)
        return region

    def free(self) -> None:
        """Give every region back. Nobody may use them any more."""
        held, self._held = self._held, []
        for region in held:
            self.pool.free(region)


def reserve(
    shares: Sequence[ShareRun], until: float, stop: Callable[[], GenieError | None]
) -> None:
    """Allocate the regions of a run's shares: those of one pool together, pools in one order.

    So nobody holds what somebody else waits for while waiting for what that one holds. Waits until
    `until` (monotonic, s); see `ArenaPool.allocate_all` for `stop`. The caller frees the shares
    when it raises: GEN0470, GEN0472 or GEN0511, and what `stop` returns.
    """
    pools: dict[str, list[ShareRun]] = {}
    for share in shares:
        pools.setdefault(share.executor.device.id, []).append(share)
    for _, group in sorted(pools.items()):
        sizes = [share.sizes() for share in group]
        flat = [nbytes for some in sizes for nbytes in some]
        left = max(until - time.monotonic(), 0.0)
        regions = group[0].pool.allocate_all(flat, owner=group[0].owner, timeout=left, stop=stop)
        for share, some in zip(group, sizes, strict=True):
            share.assign(regions[: len(some)])
            regions = regions[len(some) :]
