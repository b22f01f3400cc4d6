"""The plan of a trace: one program on one device, in format 1.0, through the same verifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import genie
from genie.client.link import LoadedPlan
from genie.graph import ir
from genie.lazy._trace import Graph
from genie.plan.emit import DEFAULT_RETRY_ON, ZERO
from genie.plan.programs import build
from genie.schedule.segments import Segment
from genie_runtime.plans import view
from genie_schemas import optable, writer
from genie_schemas.plan import (
    FORMAT,
    STATELESS_VERSION,
    ComputeStep,
    Device,
    EntryInput,
    EntryOutput,
    EntryPoint,
    ExecutionPlan,
    Opset,
    Policy,
    Provenance,
    ReturnStep,
    Step,
)
from genie_schemas.plan import Value as PlanValue
from genie_schemas.types import parse_type
from genie_schemas.verify import peak_bytes, verify

__all__ = ["LazyPlan", "make_plan", "whole_graph"]

DEVICE = "d0"
_TIMEOUT_MS = 600_000


@dataclass(frozen=True)
class LazyPlan:
    """A plan, and which of its inputs and outputs belong to what of a trace, in its order."""

    loaded: LoadedPlan
    leaves: tuple[str, ...]
    hosts: tuple[str, ...]
    kept: tuple[str, ...]
    fetched: tuple[str, ...]


def whole_graph(graph: Graph) -> ir.Graph:
    """The trace as a graph of the IR: what the device keeps and what the host sends are inputs."""
    return ir.Graph(
        name="lazy",
        torch=optable.captured_torch().partition("+")[0],
        dims=(),
        inputs=tuple(ir.Input(v) for v in (*graph.leaves, *graph.hosts)),
        constants=(),
        nodes=tuple(graph.nodes),
        outputs=tuple(ir.Output(v.name, v.name) for v in (*graph.kept, *graph.fetched)),
        modules=(),
    )


def make_plan(graph: Graph) -> LazyPlan:
    """Build and verify the plan of a graph. Raises GEN03xx when it cannot be one."""
    outputs = [*graph.kept, *graph.fetched]
    inputs = [*graph.leaves, *graph.hosts]
    whole = whole_graph(graph)
    segment = Segment("", "", DEVICE, 0, len(graph.nodes))
    reads, writes = [v.name for v in inputs], [v.name for v in outputs]
    built = build(whole, segment, reads, writes)
    compute = ComputeStep(
        id=f"compute@{DEVICE}",
        kind="compute",
        device=DEVICE,
        program=built.key,
        reads=reads,
        writes=writes,
    )
    steps: list[Step] = [compute]
    steps += [
        ReturnStep(id=f"{name}/return@{DEVICE}", kind="return", device=DEVICE, reads=[name])
        for name in writes
    ]
    used = sorted({op.op for op in built.program.ops})
    plan = ExecutionPlan(
        format=FORMAT,  # type: ignore[arg-type]
        format_version=STATELESS_VERSION,
        min_reader=STATELESS_VERSION,
        plan_digest=ZERO,
        name="lazy",
        requires=["compute.aten"],
        opset=Opset(torch=whole.torch, schemas={name: _schema(name) for name in used}),
        provenance=Provenance(
            spec=ZERO,
            graph=ir.graph_digest(whole),
            weights=ZERO,
            compiler=genie.__version__,
            passes=["lazy@1"],
        ),
        dims={},
        devices={DEVICE: Device(kind="any", needs=0)},
        links={},
        entrypoints={
            "forward": EntryPoint(
                inputs=[EntryInput(name=v.name, type=v.type, device=DEVICE) for v in inputs],
                outputs=[EntryOutput(name=v.name, value=v.name) for v in outputs],
                steps=[step.id for step in steps],
            )
        },
        constants={},
        state={},
        programs={built.key: built.program},
        values={
            v.name: PlanValue(type=v.type, bytes=parse_type(v.type).bytes_text(), device=DEVICE)
            for v in outputs
        },
        policies={
            "default": Policy(
                max_attempts=4,
                timeout_ms=_TIMEOUT_MS,
                backoff_ms=50,
                retry_on=list(DEFAULT_RETRY_ON),
            )
        },
        steps=steps,
        loops={},
        advisory={},
    )
    needs = peak_bytes(plan)[DEVICE]
    plan = plan.model_copy(update={"devices": {DEVICE: Device(kind="any", needs=needs)}})
    digest = writer.plan_digest(writer.plan_data(plan))
    plan = plan.model_copy(update={"plan_digest": digest})
    verify(plan)
    return LazyPlan(
        LoadedPlan(view(plan, writer.dumps(plan)), Path()),
        tuple(v.name for v in graph.leaves),
        tuple(v.name for v in graph.hosts),
        tuple(v.name for v in graph.kept),
        tuple(v.name for v in graph.fetched),
    )


def _schema(name: str) -> str:
    info = optable.lookup(name)
    return info.schema if info is not None else ""
