"""The embedded node as a link: inputs are copied into its memory, outputs are read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from genie.client.generation import generation_request
from genie.client.link import (
    Call,
    Handle,
    Leg,
    LegEnd,
    LoadedPlan,
    NodeLink,
    Recalled,
    RunSpec,
    Step,
    not_as_compiled,
)
from genie_runtime.dispatch import give_up, report
from genie_runtime.loop_run import LoopRun
from genie_runtime.mail import Wires
from genie_runtime.node import Node
from genie_runtime.plans import concrete
from genie_runtime.run import Run
from genie_runtime.session import Session
from genie_schemas.constants import ConstantFiles
from genie_schemas.errors import GenieError, InternalError
from genie_schemas.messages import (
    KeepRequest,
    LazyCounters,
    OpenRequest,
    PrepareRequest,
    RecallRequest,
)

__all__ = ["EmbeddedLink"]

_LOOK = 0.5
"""Seconds after which a wait for tokens looks again."""


class _EmbeddedLeg:
    """A run that is carried out in the thread that waits for it."""

    def __init__(self, run: Run, spec: RunSpec) -> None:
        self._run = run
        self._spec = spec
        self.incoming: Mapping[str, Handle] = {}

    def start(self, outgoing: Mapping[str, Handle]) -> None:
        self._write_inputs()
        if isinstance(self._run, LoopRun):
            # In a thread of its own, so that this one can hand out what comes.
            self._run.state = "starting"
            self._run.start({}, {})

    def _write_inputs(self) -> None:
        for share in self._run.shares.values():
            for name in share.inputs:
                if name in self._spec.resident:
                    continue
                data = self._spec.inputs.data(name)
                if data.nbytes:
                    self._run.input_view(name)[:] = data
        self._run.inputs_written()

    def wait(self, timeout: float) -> LegEnd | None:
        # The run's own deadline ends it; `timeout` is for nodes that may be gone.
        run = self._run
        if isinstance(run, LoopRun):
            if not run.ended.wait(timeout):
                return None
            return LegEnd(report(run), run.error, run.retryable)
        error = run.drive({}, {})
        return LegEnd(report(run), error)

    def tokens(self, after: int, rows: int) -> Iterator[tuple[int, list[Step]]]:
        run = self._run
        if not isinstance(run, LoopRun):
            raise InternalError("the run is of no loop")
        ended = False
        while not ended:
            steps, ended = run.tokens.after(after, _LOOK)
            if steps:
                yield after, steps
            after += len(steps)

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        return {
            value: (concrete(kind, self._spec.inputs.dims), self._run.output_view(value))
            for share in self._run.shares.values()
            for value, kind in share.share.outputs.items()
            if value not in self._spec.keep
        }

    def release(self) -> None:
        # A run that failed lets go by itself, once its executors have.
        if self._run.state in ("starting", "running"):
            give_up(self._run, GenieError("GEN0415", "the caller gave the run up"))
        elif self._run.state != "failed":
            self._run.release()


class EmbeddedLink:
    """A session on a node in this process."""

    def __init__(self, node: Node, hello: OpenRequest) -> None:
        self._node = node
        self._session: Session = node.open_embedded(hello)
        self.name = "embedded"
        self.order = ""
        self.threads = node.core.threads
        self.incarnation = 0

    def install(self, plan: LoadedPlan, devices: list[str]) -> None:
        """Keep a plan that the client verified; copy in the constants that are not there."""
        node, session = self._node, self._session
        if plan.digest not in session.plans:
            node.intake.adopt(session, node.core.library.keep(plan.installed), devices)
        missing = node.intake.lacking(session, plan.digest)
        if missing:
            by_digest = {c.digest: c.source for c in plan.installed.plan.constants.values()}
            with ConstantFiles(plan.folder) as files:
                for device, digest, _ in missing:
                    source = by_digest[digest]
                    try:
                        node.core.store.put(session.id, device, digest, files.view(source))
                    except GenieError as error:
                        if error.code == "GEN0425":
                            raise not_as_compiled(plan, source) from None
                        raise

    def recall(self, spec: RunSpec) -> Recalled:
        """Ask the ledger."""
        found = self._node.dispatch.recall(self._recall_request(spec))
        return Recalled(found.state, {o.value: o.type for o in found.outputs})

    def fetch(
        self, spec: RunSpec, recalled: Recalled, timeout: float
    ) -> Mapping[str, tuple[str, memoryview]]:
        """Read recorded outputs from their file."""
        stored = self._node.dispatch.stored(self._recall_request(spec))
        data = stored.read()
        return {o.value: (o.type, data[o.offset : o.offset + o.nbytes]) for o in stored.outputs}

    def prepare(
        self, spec: RunSpec, links: Mapping[str, str], wait: float, deadline: float
    ) -> Leg | None:
        """Admit a run."""
        request = PrepareRequest(
            session=self._session.id,
            plan_digest=spec.plan.digest,
            entrypoint=spec.entrypoint,
            run_id=spec.run_id,
            durable=spec.durable,
            inputs_digest=spec.inputs_digest,
            dims=dict(spec.inputs.dims),
            links={},
            wait_ms=int(wait * 1000),
            deadline_ms=max(1, int(deadline * 1000)),
            resident=dict(spec.resident),
            keep=dict(spec.keep),
            drop=list(spec.drop),
            forget=list(spec.forget),
            state=spec.state_request(),
            generation=generation_request(spec.generation),
        )
        run = self._node.dispatch.admit(self._session, request, Wires())
        return None if run is None else _EmbeddedLeg(run, spec)

    def open_call(self, spec: RunSpec, links: Mapping[str, str]) -> Call | None:
        """There is nothing to save: inputs are written where they are read."""
        return None

    def control_traffic(self) -> tuple[int, int]:
        """There are no messages."""
        return 0, 0

    def connect_peer(self, other: NodeLink) -> tuple[str, str]:
        """An embedded node serves every device itself."""
        raise InternalError("an embedded node has no peers")

    def link_path(self, link: str) -> str | None:
        """An embedded node has no links."""
        return None

    def cancel(self, run_id: str) -> None:
        """Stop runs of other threads under an id."""
        from genie_schemas.messages import CancelRequest

        self._node.dispatch.cancel(CancelRequest(run_id=run_id))

    def drop_state(self, sequence: str) -> None:
        """Free the state of a sequence."""
        self._session.states.drop(sequence)

    def reconnect(self, until: float) -> None:
        """It is never lost."""

    def traffic(self) -> tuple[int, int]:
        """Nothing leaves the process."""
        return 0, 0

    def path(self) -> str:
        """Inputs and outputs are copied within the process."""
        return "in-process"

    def lost(self) -> GenieError | None:
        """It lives as long as this process."""
        return None

    def tell(self, counters: Callable[[], LazyCounters]) -> None:
        """Nobody asks an embedded node: the program itself has the counters."""

    def status(self) -> dict[str, Any]:
        """What `genie status` would show of it."""
        return self._node.status().model_dump()

    def close(self) -> None:
        """End the session and the node."""
        self._node.close_session(KeepRequest(session=self._session.id))
        self._node.close()

    def _recall_request(self, spec: RunSpec) -> RecallRequest:
        if spec.inputs_digest is None:
            raise InternalError("a run without a name is not on record")
        return RecallRequest(
            session=self._session.id,
            plan_digest=spec.plan.digest,
            entrypoint=spec.entrypoint,
            run_id=spec.run_id,
            inputs_digest=spec.inputs_digest,
        )
