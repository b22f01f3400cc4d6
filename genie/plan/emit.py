"""Plan emission: programs, values, constants and steps as the models of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import genie
from genie.graph.entries import FORWARD, Entries, entries_digest
from genie.graph.ir import Graph
from genie.plan.programs import build, build_bodies, called
from genie.plan.qualify import Qualified
from genie.schedule.entries import Scheduled
from genie.schedule.steps import Schedule
from genie_schemas import control, optable, ragged, rng, writer
from genie_schemas.names import identifier
from genie_schemas.plan import (
    FORMAT,
    FORMAT_VERSION,
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
    Opset,
    Policy,
    Program,
    Provenance,
    State,
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
    semantics: Mapping[str, Any]
    """What `genie.plan.semantics.advice` says of the model."""
    constants_file: str
    """Name of the safetensors file that holds the constants."""


def emit(scheduled: Scheduled, facts: Emitted) -> ExecutionPlan:
    """Write the plan. Its digest is computed last; nothing in it depends on machine or moment."""
    entries, schedules = scheduled.entries, scheduled.schedules
    programs: dict[str, Program] = {}
    parts = {n: _part(n, g, schedules[n], programs) for n, g in entries.graphs.items()}
    steps = tuple(step for part in parts.values() for step in part.steps)
    used = {op.op for program in programs.values() for op in program.ops} - set(control.CONTROL)
    devices = _devices(facts.spec, schedules.values(), steps)
    lasting = bool(entries.states or entries.loops)
    version = FORMAT_VERSION if lasting else STATELESS_VERSION
    plan = ExecutionPlan(
        format=FORMAT,  # type: ignore[arg-type]
        format_version=version,
        min_reader=version,
        plan_digest=ZERO,
        name=identifier(entries.first.name),
        requires=_requires(entries, programs.values()),
        opset=Opset(torch=entries.first.torch, schemas={n: _schema(n) for n in sorted(used)}),
        provenance=Provenance(
            spec=facts.spec_digest,
            graph=entries_digest(entries),
            weights=_weights_digest(entries),
            compiler=genie.__version__,
            passes=list(facts.passes),
        ),
        dims={name: Dim(min=low, max=high) for name, low, high in entries.dims},
        devices=devices,
        links={
            f"{s.src}->{s.dst}": ASSUMED_LINK
            for s in sorted(
                (s for s in steps if isinstance(s, TransferStep)), key=lambda s: (s.src, s.dst)
            )
        },
        entrypoints={name: part.entry for name, part in parts.items()},
        constants=_constants(entries, facts.constants_file),
        state=_states(entries, scheduled.state_devices),
        programs=programs,
        values={name: value for part in parts.values() for name, value in part.values.items()},
        policies=_policies(facts.spec),
        steps=list(steps),
        loops=dict(entries.loops),
        advisory=_advisory(facts, scheduled),
    )
    peaks = peak_bytes(plan)
    plan = plan.model_copy(
        update={
            "devices": {n: d.model_copy(update={"needs": peaks[n]}) for n, d in devices.items()}
        }
    )
    return plan.model_copy(update={"plan_digest": writer.plan_digest(writer.plan_data(plan))})


@dataclass(frozen=True)
class _Part:
    """What one entry point brings into the plan."""

    entry: EntryPoint
    steps: tuple[Step, ...]
    values: Mapping[str, Value]


def _part(name: str, graph: Graph, schedule: Schedule, programs: dict[str, Program]) -> _Part:
    """An entry point's part; its programs join `programs`."""
    steps = _programs(graph, schedule, programs)
    values = _values(graph, schedule, steps)
    entry = _entrypoint(graph, schedule, steps)
    if name == FORWARD:
        return _Part(entry, steps, values)
    # Several entry points have values and steps of one name: each gets its own in front.
    qualified = Qualified(name, values)
    return _Part(
        qualified.entry(entry),
        tuple(qualified.step(step) for step in steps),
        {qualified.name(value): entry for value, entry in values.items()},
    )


def _requires(entries: Entries, programs: Iterable[Program]) -> list[str]:
    """The features that an executor and a client of the plan must have."""
    ops = [op for program in programs for op in program.ops]
    found = ["compute.aten"]
    if entries.states:
        found.append("state.kv")
    if entries.loops:
        found.append("loop.generate")
    graphs = entries.graphs.values()
    if any(op.op in control.CONTROL for op in ops):
        found.append(control.FEATURE)
    if any(g.ragged and ragged.pairs(o.name for o in g.outputs) for g in graphs):
        found.append(ragged.FEATURE)
    if any(rng.KEYWORD in op.kwargs for op in ops):
        found.append(rng.FEATURE)
    return found


def _schema(name: str) -> str:
    info = optable.lookup(name)
    return info.schema if info is not None else ""


def _programs(graph: Graph, schedule: Schedule, programs: dict[str, Program]) -> tuple[Step, ...]:
    """Programs join `programs` in the order of first use; the steps that now name them."""
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
    return tuple(steps)


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


def _devices(spec: Spec, schedules: Iterable[Schedule], steps: Sequence[Step]) -> dict[str, Device]:
    used = {device for each in schedules for device in each.input_devices.values()}
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


def _states(entries: Entries, devices: Mapping[str, str]) -> dict[str, State]:
    return {
        name: State(
            type=state.value.type,
            device=devices[name],
            initial="zeros",
            version=0,
            update=state.update,
        )
        for name, state in entries.states.items()
    }


def _constants(entries: Entries, file: str) -> dict[str, Constant]:
    return {
        c.name: Constant(
            type=c.value.type, digest=c.digest, bytes=c.bytes, source=f"{file}#{c.key}"
        )
        for c in entries.constants.values()
        if c.key == c.name
    }


def _weights_digest(entries: Entries) -> str:
    from genie_schemas.canonical import digest

    return digest({c.name: [c.value.type, c.digest] for c in entries.constants.values()})


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


def _advisory(facts: Emitted, scheduled: Scheduled) -> dict[str, Any]:
    return {"semantics": dict(facts.semantics), "placement": list(scheduled.reasons)}


def bytes_of(plan: ExecutionPlan) -> int:
    """Bytes of all constants of a plan."""
    return sum(c.bytes for c in plan.constants.values())
