"""Segments as programs: local names, so that repeated layers become one program."""

from __future__ import annotations

from dataclasses import dataclass

from genie.graph.ir import Graph, Node, rename
from genie.plan.scratch import scratch_text
from genie.schedule.segments import Segment
from genie_schemas import args, writer
from genie_schemas.names import Namer, clean
from genie_schemas.plan import Op, Program, ProgramValue


@dataclass(frozen=True)
class Built:
    """A program under its key."""

    key: str
    program: Program


def build(graph: Graph, segment: Segment, reads: list[str], writes: list[str]) -> Built:
    """The program of a segment.

    `reads` are graph names of what it takes (values first come as they are used, constants under
    the name that this segment uses), `writes` graph names of what it gives.
    """
    nodes = graph.nodes[segment.start : segment.stop]
    table = graph.table
    local = _Local(segment.region)
    names = {name: local.argument(name, name in graph.constant_names) for name in reads}
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
                args=[args.encode(rename(a, names)) for a in node.args],
                kwargs={k: args.encode(rename(a, names)) for k, a in node.kwargs},
            )
        )
    program = Program(
        inputs=[ProgramValue(name=names[n], type=table[n].type) for n in reads],
        outputs=[ProgramValue(name=names[n], type=table[n].type) for n in writes],
        scratch_bytes=scratch_text(nodes, writes, table),
        ops=ops,
    )
    return Built(writer.program_key(writer.to_data(program)), program)


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

    def value(self, node: Node) -> str:
        base = node.op.split(".")[1]
        module = node.module
        inside = module.removeprefix(self.prefix) if module.startswith(self.prefix) else ""
        return self.namer(clean(f"{inside}.{base}") if inside else base)
