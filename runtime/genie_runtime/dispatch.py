"""Runs on a node: looking them up, admitting, starting, waiting for, cancelling them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from genie_runtime.admission import Admission, run_key
from genie_runtime.core import Core
from genie_runtime.execution import Execution
from genie_runtime.loop_run import LoopRun
from genie_runtime.mail import Wires
from genie_runtime.outputs import StoredOutputs
from genie_runtime.run import Run
from genie_runtime.session import Session
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages import (
    MAX_STEPS,
    CancelReply,
    CancelRequest,
    DropStateRequest,
    Empty,
    FetchRequest,
    PrepareReply,
    PrepareRequest,
    RecallReply,
    RecallRequest,
    RecordedOutput,
    RunReport,
    RunRequestId,
    StartRequest,
    TokensRequest,
    WaitReply,
    WaitRequest,
    encode_tokens,
)

_LOOK = 0.5
"""Seconds after which a stream of tokens looks whether its client is still there."""


class Dispatch:
    """The life of runs, as far as one node sees it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.admit = Admission(core).admit

    # -- recorded results -------------------------------------------------------------------

    def recall(self, request: RecallRequest) -> RecallReply:
        """What the ledger knows of a named run; GEN0410 or GEN0411 when it may not be used."""
        self._core.session(request.session)
        found = self._core.ledger().recall(run_key(request))
        outputs = found.stored.outputs if found.stored else ()
        return RecallReply(
            state=found.state,
            outputs=[RecordedOutput(value=o.value, type=o.type, bytes=o.nbytes) for o in outputs],
        )

    def stored(self, request: RecallRequest | FetchRequest) -> StoredOutputs:
        """The recorded outputs of a run; GEN0416 when there are none."""
        found = self._core.ledger().recall(run_key(request))
        if found.stored is None:
            raise GenieError("GEN0416", f"nothing is recorded for run {request.run_id!r}")
        self._core.telemetry.add("replays")
        return found.stored

    def fetch(self, request: FetchRequest) -> Empty:
        """Send recorded outputs to the client; returns when it has verified them."""
        from genie_transport import DMAHandle, TransferError

        client = self._core.session(request.session).data()
        stored = self.stored(request)
        data = stored.read()
        deadline = time.monotonic() + request.timeout_ms / 1000
        posts = []
        for output in stored.outputs:
            handle = request.outputs.get(output.value)
            if output.nbytes and handle is not None:
                part = data[output.offset : output.offset + output.nbytes]
                mine = client.register(part)
                target = DMAHandle.from_json(handle)
                left = max(deadline - time.monotonic(), 0.001)
                posts.append((mine, client.post(mine, target, deadline=left)))
        try:
            for _, future in posts:
                future.result(max(deadline - time.monotonic(), 0.001) + 1.0)
        except (TransferError, TimeoutError) as error:
            cause = str(error)
            raise GenieError("GEN0418", "recorded outputs did not arrive", cause=cause) from None
        finally:
            for mine, _ in posts:
                if client.failure is None:
                    client.deregister(mine)
        return Empty()

    # -- before a run -----------------------------------------------------------------------

    def prepare(self, request: PrepareRequest) -> PrepareReply:
        """Admit a run for a remote client and tell where its bytes go."""
        session = self._core.session(request.session)
        wires = Wires(
            session.data(), {step: session.link(link) for step, link in request.links.items()}
        )
        run = self.admit(session, request, wires)
        if run is None:
            return PrepareReply(run=None)
        try:
            inputs, incoming = run.expose()
        except BaseException:
            run.release()
            raise
        return PrepareReply(
            run=run.key,
            inputs={name: handle.to_json() for name, handle in inputs.items()},
            incoming={step: handle.to_json() for step, handle in incoming.items()},
        )

    # -- a prepared run ---------------------------------------------------------------------

    def start(self, request: StartRequest) -> Empty:
        """Let a prepared run go; the handles are where its bytes are to be sent."""
        from genie_transport import DMAHandle

        session = self._core.session(request.session)
        run = session.run(request.run)
        with session.lock:
            if not isinstance(run, Run) or run.state != "prepared":
                raise GenieError("GEN0416", "the run was started before, or released")
            run.state = "starting"
        outgoing = {step: DMAHandle.from_json(h) for step, h in request.outgoing.items()}
        outputs = {value: DMAHandle.from_json(h) for value, h in request.outputs.items()}
        session.finished.append(run)
        run.start(outgoing, outputs)
        return Empty()

    def wait(self, request: WaitRequest) -> WaitReply:
        """Wait for the end of a run; `running` when it has not come within the time asked."""
        session = self._core.session(request.session)
        run = session.started(request.run)
        if not run.ended.wait(request.timeout_ms / 1000):
            return WaitReply(state="running")
        session.forget(run)
        if run.error is None:
            return WaitReply(state="done", report=report(run))
        errors = run.error.errors if isinstance(run.error, GenieErrors) else (run.error,)
        return WaitReply(
            state="failed",
            report=report(run),
            errors=[error.to_json() for error in errors],
            retryable=isinstance(run, LoopRun) and run.retryable,
        )

    # -- loops and state --------------------------------------------------------------------

    def tokens(self, request: TokensRequest, alive: Callable[[], bool]) -> Iterator[bytes]:
        """Frames with a loop's tokens as they come, until it is known how the run ended.

        Raises GEN0416 for a run that was not started, or is of no loop, GEN0511 for more streams of
        one run than a client can need. `alive` is asked now and then whether somebody still reads.
        """
        run = self._core.session(request.session).started(request.run)
        if not isinstance(run, LoopRun):
            raise GenieError("GEN0416", "the run is of no loop that samples")
        index, ended = request.after, False
        with run.tokens.reading():
            while not ended and alive():
                steps, ended = run.tokens.after(index, _LOOK)
                for at in range(0, len(steps), MAX_STEPS):
                    part = steps[at : at + MAX_STEPS]
                    yield encode_tokens(index, part)
                    index += len(part)

    def drop_state(self, request: DropStateRequest) -> Empty:
        """Free a sequence's state; one that is not there is free already."""
        self._core.session(request.session).states.drop(request.sequence)
        return Empty()

    def release(self, request: RunRequestId) -> Empty:
        """Give a run up: a prepared one is released, a running one stopped."""
        session = self._core.session(request.session)
        with session.lock:
            run = session.runs.get(request.run)
        if run is not None:
            give_up(run, GenieError("GEN0415", "the client gave the run up"))
        return Empty()

    def cancel(self, request: CancelRequest) -> CancelReply:
        """Stop every run under a run id; GEN0416 when there is none."""
        found = [
            run
            for session in self._sessions()
            for run in list(session.runs.values())
            if run.run_id == request.run_id and not run.ended.is_set()
        ]
        if not found:
            raise GenieError(
                "GEN0416",
                f"no run {request.run_id!r} is going on here",
                remedy="`genie status` shows the runs that are going on",
            )
        for run in found:
            give_up(run, _cancelled(run.run_id))
        return CancelReply(cancelled=len(found))

    def _sessions(self) -> list[Session]:
        with self._core.lock:
            return list(self._core.sessions.values())


def _cancelled(run_id: str) -> GenieError:
    return GenieError(
        "GEN0415",
        f"run {run_id!r} was cancelled",
        remedy="run it again if it is wanted after all: nothing was published",
    )


def give_up(run: Execution, error: GenieError) -> None:
    """End a run whatever its state."""
    if run.state == "prepared":
        run.release()
    else:
        run.stop(error)


def report(run: Execution) -> RunReport:
    """What a run cost on this node."""
    stats = [share.stats[-1] for share in run.shares.values() if share.stats]
    totals = run.totals
    return RunReport.model_construct(  # our own numbers need no checking
        attempts=max((share.attempt for share in run.shares.values()), default=0),
        total_us=max(totals.ended_ns - totals.started_ns, 0) // 1000,
        compute_us=sum(s.compute_ns for s in stats) // 1000,
        wait_us=sum(s.wait_ns for s in stats) // 1000,
        transfer_us=run.transfer_ns // 1000,
        peak_bytes={
            device: share.stats[-1].peak_bytes
            for device, share in run.shares.items()
            if share.stats
        },
        steps=sum(s.steps for s in stats),
        generation=run.tokens.report(totals.started_ns) if isinstance(run, LoopRun) else None,
    )
