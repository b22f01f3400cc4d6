"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genie.client.tensors import Array, Tensor

if TYPE_CHECKING:
    from genie.client.progress import Progress
    from genie_schemas.messages import RunReport

__all__ = ["Generated", "RunResult", "Timing"]


@dataclass(frozen=True)
class Timing:
    """Times of a run: milliseconds, and microseconds for the overhead.

    `total_ms` is what the caller waited; `compute_ms` the sum over devices, `transfer_ms` the sum
    over transfers between nodes and to the client (they overlap), for a request over the data plane
    also the time from its being sent to its reply that the node did not spend on it; `overhead_us`
    what is left of the busiest node's time on the run when computing and waiting for bytes are
    taken off.
    """

    total_ms: float
    compute_ms: float
    transfer_ms: float
    overhead_us: int

    def to_json(self) -> dict[str, float]:
        """As `execute --json` prints it."""
        return {
            "total_ms": round(self.total_ms, 3),
            "compute_ms": round(self.compute_ms, 3),
            "transfer_ms": round(self.transfer_ms, 3),
            "overhead_us": self.overhead_us,
        }


@dataclass(frozen=True)
class Generated:
    """What a loop generated, and how fast, in milliseconds; None for what cannot be said.

    `tokens` is the number of steps. The times are the daemon's, of its last attempt: from its start
    to the first token that it gave, and (last - first) / (tokens - 1). `client_…` are those of the
    caller, over all attempts.
    """

    tokens: int
    ttft_ms: float | None
    ms_per_token: float | None
    client_ttft_ms: float | None
    client_ms_per_token: float | None

    @classmethod
    def of(cls, progress: Progress, reports: Sequence[RunReport]) -> Generated:
        """Put together what the daemon and the client measured."""
        found = next((r.generation for r in reports if r.generation and r.generation.tokens), None)
        first = each = None
        if found is not None:
            first = found.ttft_us / 1000
            each = found.span_us / 1000 / (found.tokens - 1) if found.tokens > 1 else None
        return cls(len(progress.steps), first, each, *progress.times())

    def to_json(self) -> dict[str, Any]:
        """As `execute --json` prints it."""
        return {
            "tokens": self.tokens,
            "ttft_ms": _rounded(self.ttft_ms),
            "ms_per_token": _rounded(self.ms_per_token),
            "client": {
                "ttft_ms": _rounded(self.client_ttft_ms),
                "ms_per_token": _rounded(self.client_ms_per_token),
            },
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


@dataclass(frozen=True)
class RunResult:
    """Outputs of a run, and what it took.

    `tensors` holds every tensor output with its torch dtype, `literals` outputs that are constants
    of the plan. `replayed`: the outputs were on record and nothing ran. `bytes` counts what this
    client sent and received for the run: the messages of a request over the data plane without
    their framing; else all that went over its connections meanwhile, control messages included.
    `transports` maps "client->d0" and "d0->d1" to the path that the bytes took. `generation` is
    there for loops that generate.
    """

    run_id: str
    plan_digest: str
    entrypoint: str
    tensors: Mapping[str, Tensor]
    literals: Mapping[str, Any]
    replayed: bool
    attempts: int
    timing: Timing
    bytes: Mapping[str, int]
    transports: Mapping[str, str]
    threads: int
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    generation: Generated | None = None

    @property
    def outputs(self) -> dict[str, Array]:
        """Output name → array; bfloat16 and float8 as the unsigned integers of their bits."""
        return {name: tensor.array for name, tensor in self.tensors.items()}

    def to_json(self) -> dict[str, Any]:
        """As `execute --json` prints it."""
        outputs: dict[str, Any] = {
            name: {"dtype": t.dtype, "shape": list(t.shape), "sha256": t.sha256()}
            for name, t in self.tensors.items()
        }
        outputs |= {name: {"literal": value} for name, value in self.literals.items()}
        report = {
            "run_id": self.run_id,
            "plan_digest": self.plan_digest,
            "entrypoint": self.entrypoint,
            "outputs": outputs,
            "timing": self.timing.to_json(),
            "bytes": dict(self.bytes),
            "transports": dict(self.transports),
            "attempts": self.attempts,
            "replayed": self.replayed,
            "threads": self.threads,
            "peak_bytes": dict(self.peak_bytes),
        }
        if self.generation is not None:
            report["generation"] = self.generation.to_json()
        return report
