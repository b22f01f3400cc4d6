"""Segments as programs: local names, so that repeated layers become one program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genie.graph.ir import Graph, Node, Value, rename
from genie.plan.scratch import scratch_text
from genie.schedule.segments import Segment
from genie_schemas import args, writer
from genie_schemas.control import CONTROL
from genie_schemas.names import Namer, clean
from genie_schemas.plan import Op, Program, ProgramValue


@dataclass(frozen=True)
class Built:
    """A program under its key."""

    key: str
    program: Program


def build(
    graph: Graph,
    segment: Segment,
    reads: list[str],
    writes: list[str],
    bodies: Mapping[str, Built] | None = None,
) -> Built:
    """The program of a segment.

    `reads` are graph names of what it takes (values first come as they are used, constants under
    the name that this segment uses), `writes` graph names of what it gives; `bodies` are the
    programs of the graph's bodies.
    """
    nodes = graph.nodes[segment.start : segment.stop]
    local = _Local(segment.region)
    names = {
        name: local.state(name)
        if name in graph.state_names
        else local.argument(name, name in graph.constant_names)
        for name in reads
    }
    return _program(graph, nodes, graph.table, (reads, writes), (local, names), bodies or {})


def build_bodies(graph: Graph) -> dict[str, Built]:
    """The program of each body of the graph, by the body's name."""
    built: dict[str, Built] = {}
    for body in graph.bodies:
        local = _Local("")
        reads = [v.name for v in body.inputs]
        names = {name: local.argument(name, constant=False) for name in reads}
        ends = (reads, list(body.outputs))
        built[body.name] = _program(graph, body.nodes, body.table, ends, (local, names), built)
    return built


def called(program: Program) -> Iterator[str]:
    """Keys of the programs that a program calls."""
    for op in program.ops:
        if op.op in CONTROL:
            for item in op.args:
                leaf = args.decode(item)
                if isinstance(leaf, args.ProgramRef):
                    yield leaf.key


def _program(
    graph: Graph,
    nodes: Sequence[Node],
    table: Mapping[str, Value],
    ends: tuple[Sequence[str], Sequence[str]],
    naming: tuple[_Local, dict[str, str]],
    bodies: Mapping[str, Built],
) -> Built:
    reads, writes = ends
    local, names = naming
    ops = []
    for node in nodes:
        results = []
        for value in node.results:
            if value is not None:
                names[value.name] = local.value(node)
            results.append(None if value is None else names[value.name])
        ops.append(
            Op(
                out=results,
                op=node.op,
                args=[_argument(a, names, bodies) for a in node.args],
                kwargs={k: args.encode(rename(a, names)) for k, a in node.kwargs},
            )
        )
    scratch = scratch_text(nodes, writes, table, {body.name: body for body in graph.bodies})
    program = Program(
        inputs=[ProgramValue(name=names[n], type=table[n].type) for n in reads],
        outputs=[ProgramValue(name=names[n], type=table[n].type) for n in writes],
        scratch_bytes=scratch,
        ops=ops,
    )
    return Built(writer.program_key(writer.to_data(program)), program)


def _argument(arg: args.Arg, names: Mapping[str, str], bodies: Mapping[str, Built]) -> Any:
    if isinstance(arg, args.ProgramRef):
        return args.encode(args.ProgramRef(bodies[arg.key].key))
    return args.encode(rename(arg, names))


class _Local:
    """Names inside a program, relative to its region."""

    def __init__(self, region: str) -> None:
        self.prefix = f"{region}." if region else ""
        self.namer = Namer()

    def argument(self, name: str, constant: bool) -> str:
        prefix = clean(self.prefix) + "." if self.prefix else ""
        if constant and name.startswith(prefix):
            return self.namer(name.removeprefix(prefix))
        return self.namer(f"shared.{name.rpartition('.')[2]}" if constant else "x")

    def state(self, name: str) -> str:
        return self.namer(f"state.{name.rpartition('.')[2]}")

    def value(self, node: Node) -> str:
        base = node.op.split(".")[1]
        module = node.module
        inside = module.removeprefix(self.prefix) if module.startswith(self.prefix) else ""
        return self.namer(clean(f"{inside}.{base}") if inside else base)
