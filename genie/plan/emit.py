"""Plan emission: programs, values, constants and steps as the models of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import genie
from genie.graph.ir import Graph, graph_digest
from genie.plan.programs import build, build_bodies, called
from genie.schedule.steps import Schedule
from genie.semantics.regions import Region
from genie_schemas import control, optable, ragged, rng, writer
from genie_schemas.expr import parse
from genie_schemas.names import identifier
from genie_schemas.plan import (
    FORMAT,
    STATELESS_VERSION,
    ComputeStep,
    Constant,
    Device,
    Dim,
    EntryInput,
    EntryOutput,
    EntryPoint,
    ExecutionPlan,
    Link,
    LoadStep,
    Opset,
    Policy,
    Program,
    Provenance,
    Step,
    TransferStep,
    Value,
)
from genie_schemas.spec import Spec
from genie_schemas.types import parse_type
from genie_schemas.verify import peak_bytes

ZERO = "sha256:" + "0" * 64

DEFAULT_RETRY_ON = ("GEN0450", "GEN0451")
"""Executor died, executor hung: another attempt may end better."""

ASSUMED_LINK = Link(bandwidth_bytes_per_s=1_000_000_000, round_trip_us=100)
"""What the schedule assumes of a path it knows nothing of: 1 GB/s, 100 µs."""


@dataclass(frozen=True)
class Emitted:
    """What emission needs beside the schedule."""

    spec: Spec
    spec_digest: str
    passes: tuple[str, ...]
    regions: Sequence[Region]
    reasons: Sequence[str]
    constants_file: str
    """Name of the safetensors file that holds the constants."""


def emit(graph: Graph, schedule: Schedule, facts: Emitted) -> ExecutionPlan:
    """Write the plan. Its digest is computed last; nothing in it depends on machine or moment."""
    programs, steps = _programs(graph, schedule)
    used = {op.op for program in programs.values() for op in program.ops} - set(control.CONTROL)
    values = _values(graph, schedule, steps)
    devices = _devices(facts.spec, schedule, steps)
    plan = ExecutionPlan(
        format=FORMAT,  # type: ignore[arg-type]
        format_version=STATELESS_VERSION,
        min_reader=STATELESS_VERSION,
        plan_digest=ZERO,
        name=identifier(graph.name),
        requires=_requires(graph, programs.values()),
        opset=Opset(torch=graph.torch, schemas={n: _schema(n) for n in sorted(used)}),
        provenance=Provenance(
            spec=facts.spec_digest,
            graph=graph_digest(graph),
            weights=_weights_digest(graph),
            compiler=genie.__version__,
            passes=list(facts.passes),
        ),
        dims={name: Dim(min=low, max=high) for name, low, high in graph.dims},
        devices=devices,
        links={
            f"{s.src}->{s.dst}": ASSUMED_LINK
            for s in sorted(
                (s for s in steps if isinstance(s, TransferStep)), key=lambda s: (s.src, s.dst)
            )
        },
        entrypoints={"forward": _entrypoint(graph, schedule, steps)},
        constants=_constants(graph, facts.constants_file),
        state={},
        programs=programs,
        values=values,
        policies=_policies(facts.spec),
        steps=list(steps),
        loops={},
        advisory=_advisory(facts),
    )
    peaks = peak_bytes(plan)
    plan = plan.model_copy(
        update={
            "devices": {n: d.model_copy(update={"needs": peaks[n]}) for n, d in devices.items()}
        }
    )
    return plan.model_copy(update={"plan_digest": writer.plan_digest(writer.plan_data(plan))})


def _requires(graph: Graph, programs: Iterable[Program]) -> list[str]:
    """The features that an executor and a client of the plan must have."""
    ops = [op for program in programs for op in program.ops]
    found = ["compute.aten"]
    if any(op.op in control.CONTROL for op in ops):
        found.append(control.FEATURE)
    if graph.ragged and ragged.pairs(o.name for o in graph.outputs):
        found.append(ragged.FEATURE)
    if any(rng.KEYWORD in op.kwargs for op in ops):
        found.append(rng.FEATURE)
    return found


def _schema(name: str) -> str:
    info = optable.lookup(name)
    return info.schema if info is not None else ""


def _programs(graph: Graph, schedule: Schedule) -> tuple[dict[str, Program], tuple[Step, ...]]:
    """Programs in the order of first use, and the steps that now name them."""
    programs: dict[str, Program] = {}
    steps: list[Step] = []
    keys = {c.name: c.key for c in graph.constants}
    bodies = build_bodies(graph)
    for step in schedule.steps:
        if not isinstance(step, ComputeStep):
            steps.append(step)
            continue
        segment = schedule.segments[step.id]
        reads = _segment_reads(graph, segment.start, segment.stop)
        moved = {schedule.moved.get(name, name): name for name in step.reads}
        built = build(graph, segment, reads, step.writes, bodies)
        _add_called(programs, built.program, {b.key: b.program for b in bodies.values()})
        programs.setdefault(built.key, built.program)
        actual = [moved.get(name, keys.get(name, name)) for name in reads]
        steps.append(step.model_copy(update={"program": built.key, "reads": actual}))
    return programs, tuple(steps)


def _add_called(
    programs: dict[str, Program], program: Program, known: Mapping[str, Program]
) -> None:
    """Put the programs that `program` calls in front of it, those that they call first."""
    for key in called(program):
        if key not in programs:
            _add_called(programs, known[key], known)
            programs[key] = known[key]


def _segment_reads(graph: Graph, start: int, stop: int) -> list[str]:
    """What the nodes read from outside: values first, then constants, each in order of use."""
    made: set[str] = set()
    reads: dict[str, None] = {}
    for node in graph.nodes[start:stop]:
        reads.update(dict.fromkeys(n for n in node.reads() if n not in made))
        made.update(node.writes())
    constants = graph.constant_names
    return [n for n in reads if n not in constants] + [n for n in reads if n in constants]


def _values(graph: Graph, schedule: Schedule, steps: Sequence[Step]) -> dict[str, Value]:
    values = {}
    for step in steps:
        if isinstance(step, ComputeStep | TransferStep):
            for name in step.writes:
                kind = parse_type(graph.table[schedule.moved.get(name, name)].type)
                device = step.dst if isinstance(step, TransferStep) else step.device
                values[name] = Value(type=str(kind), bytes=kind.bytes_text(), device=device)
    return values


def _devices(spec: Spec, schedule: Schedule, steps: Sequence[Step]) -> dict[str, Device]:
    used: set[str] = set(schedule.input_devices.values())
    for step in steps:
        used.update((step.src, step.dst) if isinstance(step, TransferStep) else (step.device,))
    return {
        d.id: Device(kind=d.kind, memory_bytes=d.memory_bytes, needs=0)
        for d in spec.devices
        if d.id in used
    }


def _entrypoint(graph: Graph, schedule: Schedule, steps: Sequence[Step]) -> EntryPoint:
    keys = {c.name: c.key for c in graph.constants}
    outputs = []
    for output in graph.outputs:
        if output.value is None:
            from genie_schemas.args import encode

            outputs.append(EntryOutput(name=output.name, literal=encode(output.literal)))
        else:
            value = keys.get(output.value, output.value)
            outputs.append(EntryOutput(name=output.name, value=value))
    return EntryPoint(
        inputs=[
            EntryInput(name=i.name, type=i.value.type, device=schedule.input_devices[i.name])
            for i in graph.inputs
        ],
        outputs=outputs,
        steps=[step.id for step in steps],
    )


def _constants(graph: Graph, file: str) -> dict[str, Constant]:
    return {
        c.name: Constant(
            type=c.value.type, digest=c.digest, bytes=c.bytes, source=f"{file}#{c.key}"
        )
        for c in graph.constants
        if c.key == c.name
    }


def _weights_digest(graph: Graph) -> str:
    from genie_schemas.canonical import digest

    return digest({c.name: [c.value.type, c.digest] for c in graph.constants})


def _policies(spec: Spec) -> dict[str, Policy]:
    return {
        name: Policy(
            max_attempts=p.max_attempts,
            timeout_ms=p.timeout_ms,
            backoff_ms=p.backoff_ms,
            retry_on=list(p.retry_on if p.retry_on is not None else DEFAULT_RETRY_ON),
        )
        for name, p in sorted(spec.policies.items())
    }


def _advisory(facts: Emitted) -> dict[str, Any]:
    kind = facts.spec.workload
    known = kind != "auto"
    return {
        "semantics": {
            "kind": kind if known else "generic",
            "confidence": "1" if known else "0",
            "regions": [{"module": r.path, "class": r.kind, "ops": r.ops} for r in facts.regions],
        },
        "placement": list(facts.reasons),
    }


def bytes_of(plan: ExecutionPlan) -> int:
    """Bytes of all constants of a plan."""
    return sum(c.bytes for c in plan.constants.values())


def loads_of(plan: ExecutionPlan) -> Mapping[str, int]:
    """Device → bytes of the constants that its load steps name."""
    totals: dict[str, int] = {}
    for step in plan.steps:
        if isinstance(step, LoadStep):
            found = sum(plan.constants[name].bytes for name in step.reads)
            totals[step.device] = totals.get(step.device, 0) + found
    return totals


def upper_bytes(plan: ExecutionPlan, name: str) -> int:
    """Bytes of a value at the largest sizes."""
    return parse(plan.values[name].bytes).bounds(plan.ranges())[1]
