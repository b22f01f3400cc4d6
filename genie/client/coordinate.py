"""One run over one or several nodes: prepare all, start all, wait for all, or release all."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from genie.client.calls import Calls
from genie.client.ended import Ended, good, late, left, tensors, watched
from genie.client.generate import RECONNECT, Interrupted, Recovery, follow
from genie.client.link import Leg, LegEnd, LoadedPlan, NodeLink, RunSpec
from genie.client.progress import Progress
from genie.client.ragged import cut
from genie.client.result import Generated, RunResult, Timing
from genie.client.tensors import Tensor
from genie_runtime.loop_run import TOKENS
from genie_runtime.plans import InstalledPlan
from genie_runtime.telemetry import RetryBudget
from genie_schemas.args import decode
from genie_schemas.errors import GenieError
from genie_schemas.messages import RunReport
from genie_schemas.plan import EntryOutput

__all__ = ["Coordinator"]

_JOIN_PAUSE = 0.05
_TICK = 0.25
_LOOK_SECONDS = 1.0

Links = dict[str, tuple[str, NodeLink, NodeLink]]
"""Transfer step → (link id, source, destination) for steps between two nodes."""


class Coordinator:
    """The nodes of one plan. `binding` maps every plan device to its node."""

    def __init__(self, binding: Mapping[str, NodeLink]) -> None:
        self._binding = binding
        by_id = {id(node): node for node in binding.values()}
        self._nodes = sorted(by_id.values(), key=_order)
        self._peers: dict[tuple[int, ...], tuple[str, str]] = {}
        self._retries = RetryBudget()
        self._looked: dict[str, float] = {}
        self._connecting = threading.Lock()
        self._calls = Calls(self._nodes, self._links, self._check_alive)

    def devices(self, node: NodeLink) -> list[str]:
        """The plan devices that a node serves."""
        return [device for device, bound in self._binding.items() if bound is node]

    def install(self, plan: LoadedPlan) -> None:
        """Install a plan on every node."""
        for node in self._nodes:
            node.install(plan, self.devices(node))

    def drop_state(self, sequence: str) -> None:
        """Free the state of a sequence on every node; a node that is gone has freed it."""
        for node in self._nodes:
            if node.lost() is None:
                node.drop_state(sequence)

    def close(self) -> None:
        """Give up what is kept open for further runs."""
        self._calls.drop()

    def run(self, spec: RunSpec, end: float, progress: Progress | None = None) -> RunResult:
        """Carry a run out, or hand out what is on record. `end` is monotonic time.

        `progress` takes the tokens of a loop.
        """
        begun = time.monotonic()
        try:
            ended = None if spec.over_control else self._call(spec, end)
            if ended is None:
                ended = self._over_control(spec, end, progress)
        except GenieError as error:
            if error.code == "GEN0418":
                self._part()
            raise
        return _result(
            spec,
            ended,
            (time.monotonic() - begun) * 1000,
            self._transports(spec.plan.installed, spec.entrypoint),
            max(node.threads for node in self._nodes),
            progress,
        )

    # -- generation -------------------------------------------------------------------------

    def _generate(self, spec: RunSpec, progress: Progress, end: float) -> Ended:
        """Carry a loop out; again with the tokens so far when a node or an executor was lost."""
        recovery = Recovery(spec, self._retries, end)
        while True:
            try:
                if recovery.error is not None:
                    self._mend(recovery.error, end)
                resumed = progress.resumed(spec)
                ended = self._run_or_recall(resumed, self._links(resumed), end, progress)
            except Interrupted as interrupted:
                recovery.again(interrupted.error, retryable=True, lost=False)
            except GenieError as error:
                if progress.aborted:
                    raise
                found = self._most_telling(error)
                recovery.again(found, retryable=False, lost=self._lost(found))
            else:
                if ended.replayed:
                    progress.recorded(ended.values[TOKENS])
                ended.values[TOKENS] = progress.tokens()
                ended.attempts = 0 if ended.replayed else recovery.attempts
                self._retries.succeeded()
                return ended

    def _mend(self, why: GenieError, end: float) -> None:
        """Make ready for another attempt: sessions with nodes that came back, new links."""
        until = min(end, time.monotonic() + RECONNECT)
        for node in self._nodes:
            if node.lost() is None:
                continue
            try:
                node.reconnect(until)
            except GenieError as error:
                if error.code == "GEN0501":
                    raise GenieError(
                        why.code, why.message, why.place, "it did not come back", why.remedy
                    ) from None
                raise
        self._part()

    def _lost(self, error: GenieError) -> bool:
        """Whether a daemon is gone; one that ends in order says so a moment before."""
        until = time.monotonic() + (2.0 if error.code in ("GEN0508", "GEN0510") else 0.0)
        while not (found := any(node.lost() for node in self._nodes)) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    def _drawing(self, spec: RunSpec) -> NodeLink:
        """The node on which a loop's tokens are drawn."""
        shares = spec.plan.installed.shares
        return next(
            node
            for device, node in self._binding.items()
            if shares[spec.entrypoint, device].samples
        )

    def _part(self) -> None:
        """Give up links between nodes: one that broke stays broken, the next run makes new ones."""
        with self._connecting:
            self._peers.clear()
        self._calls.drop()

    def _call(self, spec: RunSpec, end: float) -> Ended | None:
        """Invoke over the data plane; None when the run has to go over the control connection."""
        try:
            return self._calls.run(spec, end)
        except GenieError as error:
            raise self._most_telling(error) from None

    def _over_control(self, spec: RunSpec, end: float, progress: Progress | None = None) -> Ended:
        """Prepare, start and wait for a run, or hand out what is on record."""
        before = [node.traffic() for node in self._nodes]
        if progress is not None:
            ended = self._generate(spec, progress, end)
        else:
            ended = self._run_or_recall(spec, self._links(spec), end)
        after = [node.traffic() for node in self._nodes]
        ended.traffic = {
            "sent": sum(a[0] - b[0] for a, b in zip(after, before, strict=True)),
            "received": sum(a[1] - b[1] for a, b in zip(after, before, strict=True)),
        }
        return ended

    # -- recorded results -------------------------------------------------------------------

    def _run_or_recall(
        self, spec: RunSpec, links: Links, end: float, progress: Progress | None = None
    ) -> Ended:
        while True:
            if time.monotonic() >= end:
                raise late(spec)
            if spec.durable:
                found = {id(node): (node, node.recall(spec)) for node in self._nodes}
                states = {recalled.state for _, recalled in found.values()}
                if states == {"recorded"}:
                    ended = Ended(replayed=True)
                    for node, recalled in found.values():
                        fetched = node.fetch(spec, recalled, end - time.monotonic())
                        ended.values |= tensors(fetched)
                    return ended
                if "running" in states:
                    self._pause(end)
                    continue
            ended_here = self._attempt(spec, links, end, progress)
            if ended_here is not None:
                return ended_here
            self._pause(end)

    def _pause(self, end: float) -> None:
        """Somebody else runs this id: look again in a moment, as long as the nodes live."""
        self._check_alive()
        time.sleep(max(0.0, min(_JOIN_PAUSE, end - time.monotonic())))

    # -- an attempt -------------------------------------------------------------------------

    def _attempt(
        self, spec: RunSpec, links: Links, end: float, progress: Progress | None
    ) -> Ended | None:
        """Run on all nodes; None when somebody else got hold of the run id first."""
        legs: list[tuple[NodeLink, Leg]] = []
        try:
            for node in self._nodes:
                mine = {
                    step: link for step, (link, src, dst) in links.items() if node in (src, dst)
                }
                left = max(end - time.monotonic(), 0.001)
                leg = node.prepare(spec, mine, left, left)
                if leg is None:
                    return None
                legs.append((node, leg))
            targets = {step: handle for _, leg in legs for step, handle in leg.incoming.items()}
            for node, leg in legs:
                wanted = {
                    step: targets[step]
                    for step, (_, src, _) in links.items()
                    if src is node and step in targets
                }
                leg.start(wanted)
            if progress is None:
                reports = self._wait(spec, legs, end)
            else:
                drawing = self._drawing(spec)
                reports = follow(spec, legs, drawing, progress, end, self._check_alive)
            ended = Ended(reports)
            for _, leg in legs:
                ended.values |= tensors(leg.outputs())
            return ended
        finally:
            for _, leg in reversed(legs):
                leg.release()

    def _wait(self, spec: RunSpec, legs: list[tuple[NodeLink, Leg]], end: float) -> list[RunReport]:
        if len(legs) == 1:
            _, leg = legs[0]
            while True:
                found = leg.wait(left(spec, end))
                self._check_alive()
                if found is not None:
                    return [good(found)]
        return self._wait_many(spec, legs, end)

    def _wait_many(
        self, spec: RunSpec, legs: list[tuple[NodeLink, Leg]], end: float
    ) -> list[RunReport]:
        """Wait for all legs at once, so that the first failure ends the run."""
        ends: queue.SimpleQueue[LegEnd] = queue.SimpleQueue()
        reports: list[RunReport] = []
        with watched(spec, legs, end, ends.put):
            try:
                while len(reports) < len(legs):
                    self._check_alive()
                    try:
                        reports.append(good(ends.get(timeout=min(_TICK, left(spec, end)))))
                    except queue.Empty:
                        continue
            except GenieError as error:
                raise self._most_telling(error) from None
        return reports

    def _most_telling(self, error: GenieError) -> GenieError:
        """A lost daemon explains the failed transfers and waits around it, so it goes first."""
        if error.code in ("GEN0418", "GEN0414", "GEN0508"):
            # The heartbeat needs up to 1.5 s to be sure that a silent daemon is gone.
            until = time.monotonic() + 2.0
            while error.code == "GEN0418" and time.monotonic() < until:
                lost = next((e for e in (node.lost() for node in self._nodes) if e), None)
                if lost is not None:
                    return lost
                time.sleep(0.02)
        return error

    def _check_alive(self) -> None:
        for node in self._nodes:
            lost = node.lost()
            if lost is not None:
                raise lost

    # -- nodes among themselves -------------------------------------------------------------

    def _links(self, spec: RunSpec) -> Links:
        """Transfer step → (link id, source, destination) for steps between two nodes."""
        with self._connecting:
            return self._connect(spec.plan.installed, spec.entrypoint)

    def _connect(self, plan: InstalledPlan, entrypoint: str) -> Links:
        found: dict[str, tuple[str, NodeLink, NodeLink]] = {}
        for (entry, _), share in plan.shares.items():
            if entry != entrypoint:
                continue
            for step, hop in share.outgoing.items():
                src, dst = self._binding[hop.src], self._binding[hop.dst]
                if src is dst:
                    continue
                first, second = sorted((src, dst), key=_order)
                key = _pair(first, second)
                if key not in self._peers:
                    self._peers[key] = first.connect_peer(second)
                found[step] = (self._peers[key][0], src, dst)
        return found

    def _transports(self, plan: InstalledPlan, entrypoint: str) -> dict[str, str]:
        """The path of every leg of a run: "client->d0", "d0->d1"."""
        paths = {f"client->{device}": node.path() for device, node in self._binding.items()}
        for (entry, device), share in plan.shares.items():
            for hop in share.outgoing.values():
                if entry == entrypoint:
                    ends = sorted((self._binding[device], self._binding[hop.dst]), key=_order)
                    paths[f"{device}->{hop.dst}"] = self._path_between(ends[0], ends[1])
        return paths

    def _path_between(self, first: NodeLink, second: NodeLink) -> str:
        key = _pair(first, second)
        peer = self._peers.get(key)
        if peer is None:
            return "in-process"
        link, path = peer
        now = time.monotonic()
        # Only a path beside the connection can be left for another, and not within a second.
        if path in ("dpdk", "ucx") and now - self._looked.get(link, 0.0) > _LOOK_SECONDS:
            self._looked[link] = now
            path = first.link_path(link) or path
            self._peers[key] = (link, path)
        return path


def _pair(first: NodeLink, second: NodeLink) -> tuple[int, ...]:
    """Names a connection: one made in an earlier session with either node is another."""
    return id(first), first.incarnation, id(second), second.incarnation


def _order(node: NodeLink) -> str:
    return node.order


def _result(
    spec: RunSpec,
    ended: Ended,
    total_ms: float,
    transports: Mapping[str, str],
    threads: int,
    progress: Progress | None,
) -> RunResult:
    entry = spec.plan.installed.plan.entrypoints.get(spec.entrypoint)
    outputs = entry.outputs if entry is not None else [EntryOutput(name=TOKENS, value=TOKENS)]
    tensors: dict[str, Tensor] = {}
    literals: dict[str, Any] = {}
    for output in outputs:
        if output.value in spec.keep:
            continue
        if output.value is not None:
            tensors[output.name] = _value(output, output.value, ended)
        else:
            literals[output.name] = decode(output.literal)
    reports = ended.reports
    peaks: dict[str, int] = {}
    for report in reports:
        peaks |= report.peak_bytes
    busiest = max((r.total_us - r.compute_us - r.wait_us for r in reports), default=0)
    return RunResult(
        run_id=spec.run_id,
        plan_digest=spec.plan.digest,
        entrypoint=spec.entrypoint,
        tensors=cut(spec.plan.installed.plan, tensors),
        literals=literals,
        replayed=ended.replayed,
        attempts=ended.attempts or max((r.attempts for r in reports), default=0),
        timing=Timing(
            total_ms,
            sum(r.compute_us for r in reports) / 1000,
            (sum(r.transfer_us for r in reports) + ended.travel_us) / 1000,
            max(busiest, 0),
        ),
        bytes=ended.traffic or {},
        transports=transports,
        threads=threads,
        peak_bytes=peaks,
        generation=None if progress is None else Generated.of(progress, reports),
    )


def _value(output: EntryOutput, value: str, ended: Ended) -> Tensor:
    found = ended.values.get(value)
    if found is None:
        raise GenieError("GEN0509", f"no node delivered the output {output.name!r}")
    return found
