"""A client's session: plans installed on one or several nodes, and runs over them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from genie.client.aliases import check_apart, written_inputs
from genie.client.coordinate import Coordinator
from genie.client.endpoints import assign
from genie.client.generation import (
    check_loop,
    generation,
    generation_request,
    sample_of,
    unlimited,
    with_lengths,
)
from genie.client.inputs import check_inputs
from genie.client.link import LoadedPlan, NodeLink, RunSpec
from genie.client.progress import OnTokens, Progress
from genie.client.result import RunResult
from genie.client.sequence import Sequence, not_in_a_sequence
from genie.client.tensors import Array, Tensor
from genie_runtime.plans import sampling, view
from genie_runtime.ports import Generation
from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError
from genie_schemas.messages import RUN_ID
from genie_schemas.reader import read_bytes, read_plan
from genie_schemas.verify import verify

__all__ = ["Session", "check_run_id", "load_plan"]

DEADLINE = 600.0
"""Seconds that a run may take when the caller gives no deadline."""


def load_plan(path: Path) -> LoadedPlan:
    """Read and verify a plan file. Raises GEN03xx."""
    raw = read_bytes(path)
    plan = read_plan(raw, str(path))
    verify(plan)
    return LoadedPlan(view(plan, raw.decode()), path.parent)


def check_run_id(run_id: str) -> None:
    """GEN0417 unless it may name a run."""
    if not re.fullmatch(RUN_ID, run_id):
        raise GenieError(
            "GEN0417",
            f"{run_id[:140]!r} is no run id",
            remedy="use 1 to 128 letters, digits and . _ : - starting with a letter or digit",
        )


class Session(Closing):
    """Connected nodes. Get one from `genie.client.connect`; close it, or use it with `with`.

        with connect() as session:
            plan = session.install("digits.plan.json")
            result = session.run({"image": array})

    Several threads may run at once; plans are installed by one. On daemons, the first run of an
    entry point with certain sizes goes over the control connection, and later ones as one message
    there and one back, in a call channel that stays open.
    """

    def __init__(self, nodes: Iterable[tuple[str | None, NodeLink]]) -> None:
        """`nodes` pairs plan devices with nodes; None stands for the plan's order."""
        self._nodes = tuple(nodes)
        self._plans: dict[str, tuple[LoadedPlan, Coordinator]] = {}
        self._latest: str | None = None
        self._forgotten: list[str] = []
        self._written: dict[tuple[str, str], frozenset[str]] = {}

    @property
    def links(self) -> list[NodeLink]:
        """Every node of the session, once."""
        return list({id(node): node for _, node in self._nodes}.values())

    def install(self, plan: str | Path | LoadedPlan) -> LoadedPlan:
        """Verify a plan, bind its devices to the nodes, and send what is missing there.

        Raises GEN03xx for an invalid plan or weights, GEN0412, GEN0420 to GEN0422 when it does
        not fit the nodes, GEN05xx when a node is gone.
        """
        loaded = plan if isinstance(plan, LoadedPlan) else load_plan(Path(plan))
        if loaded.digest not in self._plans:
            binding = assign(loaded.installed.plan, self._nodes)
            coordinator = Coordinator(binding)
            coordinator.install(loaded)
            self._plans[loaded.digest] = (loaded, coordinator)
        self._latest = loaded.digest
        return loaded

    def forget(self, plan: LoadedPlan) -> None:
        """Use a plan no more: nodes hear of it with the next run, and may then drop it."""
        found = self._plans.pop(plan.digest, None)
        if found is not None:
            found[1].close()
            for key in [key for key in self._written if key[0] == plan.digest]:
                del self._written[key]
            self._forgotten.append(plan.digest)

    def run(
        self,
        inputs: Mapping[str, Array | Tensor],
        *,
        plan: LoadedPlan | None = None,
        entrypoint: str = "forward",
        run_id: str | None = None,
        deadline: float = DEADLINE,
        resident: Mapping[str, str] | None = None,
        keep: Mapping[str, str] | None = None,
        drop: Iterable[str] = (),
    ) -> RunResult:
        """Run an installed plan (the one installed last, by default).

        `inputs` maps names to arrays of exactly the dtype and a shape that the plan declares;
        bfloat16 and float8 come as `Tensor`. `run_id` names the result for ever: the same id with
        the same inputs returns what is on record; without one the run is not recorded and gets a
        random id. `deadline` is seconds from now.

        Tensors can stay on the node between the runs of a session: `keep` maps returned values of
        the plan to names (32 hex digits) under which they stay instead of coming back, `resident`
        maps inputs to tensors kept so, and `drop` names those that nobody needs any more. A run
        that uses these has no `run_id`.

        Raises GenieErrors with everything wrong with the inputs (GEN0400 to GEN0405), GEN0409 when
        one that the forward writes to shares memory with another, GEN0410 for a run id used
        otherwise, GEN0414 at the deadline, GEN0502 when a node was lost.
        """
        loaded, coordinator = self._find(plan)
        if sampling(loaded.installed.plan, entrypoint) is not None:
            raise unlimited()
        end = time.monotonic() + deadline
        spec = self._spec(loaded, entrypoint, inputs, run_id, resident or {}, keep or {}, drop)
        return coordinator.run(spec, end)

    def generate(
        self,
        inputs: Mapping[str, Array | Tensor],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        plan: LoadedPlan | None = None,
        entrypoint: str = "generate",
        on_tokens: OnTokens | None = None,
        run_id: str | None = None,
        deadline: float = DEADLINE,
    ) -> RunResult:
        """Generate tokens with a loop of an installed plan (the one installed last, by default).

        `inputs` are the prompts, int64[batch, width] in the language models that Genie compiles,
        and their `lengths`, int64[batch], which may be left out when all are as long as the batch
        is wide. The result's `tokens` is int64[batch, n], n up to `max_new_tokens`: a row ends with
        the model's end token, and rows that ended before others are padded.

        Greedy at `temperature` 0; else drawn with `seed` from the `top_k` likeliest tokens (0: all)
        that have `top_p` of the probability together. The same call gives the same tokens.

        `on_tokens(index, tokens)` is called in this thread with each column of `tokens` as soon as
        it is there; what it raises ends the run. A daemon or an executor that is lost meanwhile
        costs time alone: the loop goes on from the tokens so far when it is back.

        Raises what `run` does, GEN0407 for an entry point that does not generate, GEN0440 for wrong
        lengths, GEN0479 when prompt and new tokens exceed the cache, GEN0480 for a parameter out of
        range.
        """
        loaded, coordinator = self._find(plan)
        end = time.monotonic() + deadline
        sample = sample_of(loaded.installed.plan, entrypoint)
        wanted = generation(max_new_tokens, temperature, top_k, top_p, seed)
        spec = self._spec(loaded, entrypoint, inputs, run_id, sampled=wanted)
        lengths = spec.inputs.tensors[sample.lengths].array
        check_loop(sample, wanted, lengths)
        return coordinator.run(spec, end, Progress(lengths.size, sample, wanted, on_tokens))

    def sequence(self, plan: LoadedPlan | None = None) -> Sequence:
        """Begin a sequence: runs whose state (a KV cache) stays on the nodes between them."""
        loaded, coordinator = self._find(plan)

        def run(
            inputs: Mapping[str, Array | Tensor],
            entrypoint: str,
            deadline: float,
            key: str,
            version: int,
        ) -> RunResult:
            if sampling(loaded.installed.plan, entrypoint) is not None:
                raise not_in_a_sequence(entrypoint)
            end = time.monotonic() + deadline
            spec = self._spec(loaded, entrypoint, inputs, None, state=(key, version))
            return coordinator.run(spec, end)

        return Sequence(run, coordinator.drop_state)

    def _find(self, plan: LoadedPlan | None) -> tuple[LoadedPlan, Coordinator]:
        digest = plan.digest if plan is not None else self._latest
        if digest is None or digest not in self._plans:
            raise GenieError("GEN0426", "no plan is installed", remedy="call install() first")
        return self._plans[digest]

    def _spec(
        self,
        loaded: LoadedPlan,
        entrypoint: str,
        inputs: Mapping[str, Array | Tensor],
        run_id: str | None,
        resident: Mapping[str, str] = MappingProxyType({}),
        keep: Mapping[str, str] = MappingProxyType({}),
        drop: Iterable[str] = (),
        *,
        sampled: Generation | None = None,
        state: tuple[str, int] | None = None,
    ) -> RunSpec:
        """A run whose inputs are checked."""
        plan = loaded.installed.plan
        whole = with_lengths(plan, entrypoint, inputs)
        checked = check_inputs(plan, entrypoint, whole, resident)
        check_apart(checked.tensors, resident, lambda: self._writes(loaded, entrypoint))
        digest = None
        if run_id is not None:
            check_run_id(run_id)
            digest = checked.digest(generation_request(sampled))
        forgotten, self._forgotten = self._forgotten, []
        return RunSpec(
            loaded,
            entrypoint,
            run_id or f"run-{secrets.token_hex(8)}",
            run_id is not None,
            digest,
            checked,
            resident,
            keep,
            tuple(drop),
            forgotten,
            state,
            sampled,
        )

    def _writes(self, plan: LoadedPlan, entrypoint: str) -> frozenset[str]:
        """The inputs that a plan writes to, found out once."""
        key = plan.digest, entrypoint
        if key not in self._written:
            loop = sampling(plan.installed.plan, entrypoint)
            name = entrypoint if loop is None else loop.entry
            self._written[key] = written_inputs(plan.installed.plan, name)
        return self._written[key]

    def cancel(self, run_id: str) -> None:
        """Stop every run under an id, on every node; GEN0416 when there is none anywhere."""
        missing: list[GenieError] = []
        for link in self.links:
            try:
                link.cancel(run_id)
            except GenieError as error:
                if error.code != "GEN0416":
                    raise
                missing.append(error)
        if len(missing) == len(self.links):
            raise missing[0]

    def traffic(self) -> dict[str, int]:
        """Bytes sent and received over all nodes since the session was opened."""
        totals = [link.traffic() for link in self.links]
        return {"sent": sum(t[0] for t in totals), "received": sum(t[1] for t in totals)}

    def close(self) -> None:
        """End the session with every node."""
        for link in self.links:
            link.close()
