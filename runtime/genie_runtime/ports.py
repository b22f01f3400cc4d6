"""What crosses between the runtime's parts: small values, and the port behind which executors are.

The node (sessions, ledger, admission, transfers) never touches a tensor, and an executor never
touches a socket of the network: both see byte regions of shared arenas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from genie_schemas.errors import GenieError


@dataclass(frozen=True)
class DeviceSpec:
    """A device that a node offers. `memory_bytes` is the limit that admission holds plans to."""

    id: str
    kind: Literal["cpu", "cuda"]
    index: int
    memory_bytes: int


@dataclass(frozen=True)
class Region:
    """`length` bytes at `offset` of the arena `arena`; offsets are multiples of 64."""

    arena: int
    offset: int
    length: int


@dataclass(frozen=True)
class StateUse:
    """The state that a run reads and moves on, on one device.

    `key` names it on the node and holds its session; `expects` is the version that must be current
    (0: it is made anew); a run that commits makes `expects + 1`. Without `keep` it ends with the
    run.
    """

    key: str
    expects: int
    keep: bool


@dataclass(frozen=True)
class Generation:
    """How a generation loop draws: greedy at `temperature` 0.

    The token `i` of row `b` is drawn with the counter (`seed`, b, i), so that a resumed run draws
    the same. `top_k` 0 and `top_p` 1 leave every token; `forced` are the first tokens of each row,
    which an interrupted run has already given: they are fed and not reported again.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    forced: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class RunRequest:
    """One attempt at one device's share of a run.

    `inputs` maps entry-point inputs on this device to the regions that hold them (dense, in the
    stride order of their type), `incoming` transfer step ids to the regions where their bytes
    arrive, `outgoing` transfer step ids to the regions that they leave from, `outputs` the values
    of this device's return steps to the regions that receive them. `dims` binds every dimension
    that the entry point uses. `entrypoint` may name a generation loop: inputs and transfers are
    then those of its entry and body, it has no output regions, and `generation` is given.

    `bells` and `triggers` are non-blocking eventfds of transfers, by step, that pass without a word
    in between: an incoming one's is written to when its bytes are there, and the executor writes to
    an outgoing one's when its region holds the value. They stay open until the run's last event.
    """

    run_key: str
    attempt: int
    plan_digest: str
    entrypoint: str
    device: str
    dims: Mapping[str, int]
    inputs: Mapping[str, Region]
    incoming: Mapping[str, Region]
    outgoing: Mapping[str, Region]
    outputs: Mapping[str, Region]
    state: StateUse | None = None
    generation: Generation | None = None
    bells: Mapping[str, int] = field(default_factory=dict)
    triggers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStats:
    """What one device's share cost: times in nanoseconds, sizes in bytes."""

    compute_ns: int = 0
    wait_ns: int = 0
    peak_bytes: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Ready:
    """The region of an outgoing transfer holds its value."""

    step: str


@dataclass(frozen=True)
class Sampled:
    """New token `index` of every row of a generation loop; -1 for rows that have ended."""

    index: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """Every step ran and every output region holds its value."""

    stats: RunStats


@dataclass(frozen=True)
class Failed:
    """The attempt ended; `retryable` says that another attempt may end better."""

    error: GenieError
    retryable: bool = False


RunEvent = Ready | Sampled | Finished | Failed
OnEvent = Callable[[RunEvent], None]
"""Called from a thread of the executor's; must not block."""


@dataclass(frozen=True)
class ExecutorFacts:
    """What an executor reports of itself once it is up (for a worker: once torch is imported)."""

    torch: str
    threads: int
    device_name: str
    memory_bytes: int
    capability: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class ArenaPort(Protocol):
    """A shared byte area: anonymous memory that executors of other processes map by `fd`."""

    @property
    def id(self) -> int:
        """Its number, which regions name; never used again in this process."""
        ...

    @property
    def fd(self) -> int:
        """Its file descriptor, sealed against growing and shrinking; -1 when it is assembled."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        """(arena, offset, length) of what it is assembled of; empty when it has a file."""
        ...

    def view(self, region: Region) -> memoryview:
        """The bytes of a region, writable. Raises GenieError GEN0466 for one outside."""
        ...


class ExecutorPort(Protocol):
    """One device's executor, in this process or in a worker. Thread-safe.

    A run that waits for a transfer holds no lock of the device: two runs over the same devices in
    opposite order cannot block each other.

    `install` and `load` wait until they took effect and raise GenieError otherwise; the regions of
    constants must stay until `uninstall`. `run` returns at once: every problem with a request
    arrives as `Failed`, from another thread, and the request's regions belong to the run until its
    last event. One plan may be installed for several of its devices. A later attempt under the
    same run key cancels the one before it; `deliver`, `cancel` and `free_state` for what is not
    there have no effect. After `close`, what needs the executor raises GEN0415.

    A generation loop runs its body many times: each turn reports `Ready` for every transfer that
    leaves, and takes one `deliver` for every one that arrives. A transfer that has a trigger is
    reported the first time only; one that has a bell takes `deliver` too.
    """

    @property
    def device(self) -> DeviceSpec:
        """The device that it computes on."""
        ...

    def facts(self, timeout: float) -> ExecutorFacts:
        """What the executor is, once it is up; GEN0453 or GEN0468 when it cannot be."""
        ...

    def map_arena(self, arena: ArenaPort) -> None:
        """Make an arena's bytes reachable for regions."""
        ...

    def unmap_arena(self, arena_id: int) -> None:
        """Forget an arena."""
        ...

    def install(self, plan_text: str, plan_digest: str, plan_device: str) -> None:
        """Compile what the plan does on `plan_device`; GEN0304, GEN0452, GEN0456 to GEN0458."""
        ...

    def uninstall(self, plan_digest: str) -> None:
        """Forget a plan, its constants, and a quarantine."""
        ...

    def load(self, plan_digest: str, constants: Mapping[str, Region]) -> None:
        """Make constants (name → verified bytes) resident; GEN0455, GEN0463, GEN0466, GEN0467."""
        ...

    def run(self, request: RunRequest, on_event: OnEvent) -> None:
        """Start a run."""
        ...

    def deliver(self, run_key: str, step: str) -> None:
        """The bytes of the incoming transfer `step` lie in their region."""
        ...

    def cancel(self, run_key: str) -> None:
        """End a run before its next step; it reports GEN0415."""
        ...

    def free_state(self, key: str) -> None:
        """Drop the state that `StateUse.key` names, of every plan; a run that has it keeps none."""
        ...

    def close(self, timeout: float) -> None:
        """End every run and the executor itself, by force after `timeout` seconds. Idempotent."""
        ...
