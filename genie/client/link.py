"""The seam between a client and a node: embedded in the process, or a daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from genie.client.inputs import CheckedInputs
from genie_runtime.plans import InstalledPlan
from genie_runtime.ports import Generation
from genie_runtime.tokens import Step
from genie_schemas.errors import GenieError, Place
from genie_schemas.messages import LazyCounters, RunReport, StateRequest

__all__ = [
    "Call",
    "CallEnd",
    "Leg",
    "LegEnd",
    "LoadedPlan",
    "NodeLink",
    "Recalled",
    "RunSpec",
    "Step",
    "not_as_compiled",
]

Handle = dict[str, Any]


@dataclass(frozen=True)
class LoadedPlan:
    """A plan of the client's, with the folder that holds its weights."""

    installed: InstalledPlan
    folder: Path

    @property
    def digest(self) -> str:
        """The plan's digest."""
        return self.installed.digest


def not_as_compiled(plan: LoadedPlan, source: str) -> GenieError:
    """GEN0425 for a constant whose bytes beside the plan are not those it was compiled with."""
    file, _, key = source.partition("#")
    return GenieError(
        "GEN0425",
        f"{key!r} in the weights file is not the constant that the plan was compiled with",
        Place(file=str(plan.folder / file)),
        remedy="restore the weights file beside the plan, or compile again",
    )


@dataclass(frozen=True)
class RunSpec:
    """What a run is. `durable`: its id was given by the caller, so ledgers keep it."""

    plan: LoadedPlan
    entrypoint: str
    run_id: str
    durable: bool
    inputs_digest: str | None
    inputs: CheckedInputs
    resident: Mapping[str, str] = field(default_factory=dict)
    """Inputs that the node keeps: name → kept tensor."""
    keep: Mapping[str, str] = field(default_factory=dict)
    """Returned values that stay on the node: value → the kept tensor's name."""
    drop: Sequence[str] = ()
    """Kept tensors that nobody needs any more."""
    forget: Sequence[str] = ()
    """Digests of plans that the session needs no more."""
    state: tuple[str, int] | None = None
    """The sequence whose state it goes on from, and at which version."""
    generation: Generation | None = None
    """How a loop samples."""

    @property
    def over_control(self) -> bool:
        """Whether it is more than call channels know of."""
        beyond = self.durable or self.keeps or self.state is not None
        return beyond or self.plan.installed.stateful(self.entrypoint)

    def state_request(self) -> StateRequest | None:
        """As nodes are told of the state."""
        if self.state is None:
            return None
        return StateRequest(sequence=self.state[0], version=self.state[1])

    @property
    def keeps(self) -> bool:
        """Whether the run has to do with kept tensors, which call channels know nothing of."""
        return bool(self.resident or self.keep or self.drop or self.forget)


@dataclass(frozen=True)
class Recalled:
    """What a node's ledger says: "new", "running" or "recorded" with (value → concrete type)."""

    state: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LegEnd:
    """How a node's part of a run ended; `retryable`: a loop's next run may end better."""

    report: RunReport | None
    error: GenieError | None
    retryable: bool = False


class Leg(Protocol):
    """A prepared run on one node. Every method raises GenieError."""

    @property
    def incoming(self) -> Mapping[str, Handle]:
        """Where peers send, by transfer step."""
        ...

    def start(self, outgoing: Mapping[str, Handle]) -> None:
        """Let it go, sending transfers to these handles, and send the inputs."""
        ...

    def wait(self, timeout: float) -> LegEnd | None:
        """The end, or None when it has not come within `timeout` seconds."""
        ...

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        """Value → (concrete type, dense bytes), after a good end; valid until `release`."""
        ...

    def tokens(self, after: int, rows: int) -> Iterator[tuple[int, list[Step]]]:
        """A loop's tokens from index `after` on as they come: (first index, steps of `rows`).

        Ends when it is known how the run ended, or with `release`.
        """
        ...

    def release(self) -> None:
        """Give it up, whatever its state; what it reserved is freed. Never raises."""
        ...


@dataclass(frozen=True)
class CallEnd:
    """How an invocation ended on a node.

    Not `admitted`: nothing was begun, and the channel is closed. `last`: the node has closed the
    channel. `travel_us` is the time from the request to its reply without the node's own.
    """

    report: RunReport | None
    error: GenieError | None
    admitted: bool
    last: bool
    travel_us: int


class Call(Protocol):
    """A call channel to one node. One invocation at a time. Methods but `close` raise GenieError.

    start(), wait() until it returns an end, outputs(), settle(); after a failure only close().
    """

    @property
    def incoming(self) -> Mapping[str, Handle]:
        """Where peers send, by transfer step."""
        ...

    def target(self, outgoing: Mapping[str, Handle]) -> None:
        """Where the node sends its transfers, before the first invocation."""
        ...

    def start(self, spec: RunSpec, seconds: float) -> None:
        """Send a request that may take `seconds`."""
        ...

    def wait(self, timeout: float) -> CallEnd | None:
        """The end, or None when it has not come within `timeout` seconds."""
        ...

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        """Value → (concrete type, dense bytes), after a good end; valid until `start`."""
        ...

    def moved(self) -> tuple[int, int]:
        """(bytes sent, bytes received) by the last invocation."""
        ...

    def settle(self) -> None:
        """The invocation is over, and its inputs are no longer needed."""
        ...

    def close(self, *, told: bool = False) -> None:
        """Give the channel up and stop what goes on in it; `told`: the node knows. Never raises."""
        ...


class NodeLink(Protocol):
    """One node as the client sees it."""

    @property
    def name(self) -> str:
        """The endpoint, or "embedded"."""
        ...

    @property
    def order(self) -> str:
        """All clients prepare runs on nodes in this order, so that none waits in a circle."""
        ...

    @property
    def incarnation(self) -> int:
        """How often the session with the node was lost and opened anew."""
        ...

    @property
    def threads(self) -> int:
        """Threads that the node's executors compute with."""
        ...

    def install(self, plan: LoadedPlan, devices: list[str]) -> None:
        """Make a plan and its constants usable for these plan devices."""
        ...

    def recall(self, spec: RunSpec) -> Recalled:
        """What the ledger knows of a named run."""
        ...

    def fetch(
        self, spec: RunSpec, recalled: Recalled, timeout: float
    ) -> Mapping[str, tuple[str, memoryview]]:
        """Recorded outputs: value → (concrete type, dense bytes)."""
        ...

    def prepare(
        self, spec: RunSpec, links: Mapping[str, str], wait: float, deadline: float
    ) -> Leg | None:
        """Admit a run (`wait`, `deadline` in seconds from now); None when it runs elsewhere."""
        ...

    def open_call(self, spec: RunSpec, links: Mapping[str, str]) -> Call | None:
        """Open a call channel for runs like this one; None where there are none."""
        ...

    def control_traffic(self) -> tuple[int, int]:
        """(bytes sent, bytes received) in control messages so far."""
        ...

    def connect_peer(self, other: NodeLink) -> tuple[str, str]:
        """Set up a data connection with another node: (link id, path)."""
        ...

    def link_path(self, link: str) -> str | None:
        """The path that a data connection with another node has now; None: it does not say."""
        ...

    def cancel(self, run_id: str) -> None:
        """Stop every run under an id on this node."""
        ...

    def drop_state(self, sequence: str) -> None:
        """Free the state of a sequence; one that is not there is free already."""
        ...

    def reconnect(self, until: float) -> None:
        """Open a new session in place of a lost one, waiting for the node until `until`."""
        ...

    def traffic(self) -> tuple[int, int]:
        """(bytes sent, bytes received) between client and node so far, data and control."""
        ...

    def path(self) -> str:
        """How bytes travel between client and node."""
        ...

    def tell(self, counters: Callable[[], LazyCounters]) -> None:
        """Tell the node, now and then and at the end, what the lazy device has counted."""
        ...

    def lost(self) -> GenieError | None:
        """Why the node is gone, or None."""
        ...

    def close(self) -> None:
        """End the session with the node."""
        ...
