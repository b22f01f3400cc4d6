"""Small tensors that depend on nothing on the device: the host evaluates them by itself.

Programs look at such tensors to decide what to do (a mask of ones, a range of positions). Waiting
for a device would buy nothing: the operators that lead there are run here, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genie.graph import ir
from genie.lazy._trace import Graph
from genie.plan.programs import build
from genie.schedule.segments import Segment
from genie_runtime.executors.bound import Bound
from genie_runtime.executors.slots import compile_program
from genie_schemas import optable
from genie_schemas.types import parse_type
from genie_schemas.verify.operators import mutated_values

__all__ = ["LocalProgram", "local_program"]


@dataclass(frozen=True)
class LocalProgram:
    """A part of a trace, ready to run here. `hosts` are places among the trace's host tensors."""

    bound: Bound
    hosts: tuple[int, ...]

    def run(self, hosts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The fetched tensors."""
        found = self.bound.run([hosts[place].clone() for place in self.hosts])
        return [tensor.clone() for tensor in found]


def local_program(graph: Graph, limit: int) -> LocalProgram | None:
    """The part of a graph that leads to what is fetched; None where it is not for the host.

    That is where it reads a tensor of the device, or a value has more than `limit` bytes.
    """
    table = {v.name: v for v in (*graph.leaves, *graph.hosts)}
    for node in graph.nodes:
        table.update({v.name: v for v in node.results if v is not None})
    wanted = {value.storage for value in graph.fetched}
    nodes: list[ir.Node] = []
    for node in reversed(graph.nodes):
        info = optable.lookup(node.op)
        if info is None:
            return None
        made = {v.storage for v in node.results if v is not None}
        made |= {table[name].storage for name in _written(node, info)}
        if made & wanted:
            wanted |= {table[name].storage for name in node.reads()} | made
            nodes.append(node)
    if any(value.storage in wanted for value in graph.leaves):
        return None
    used = [v for v in table.values() if v.storage in wanted]
    if any(parse_type(v.type).nbytes({}) > limit for v in used):
        return None
    hosts = [i for i, value in enumerate(graph.hosts) if value.storage in wanted]
    inputs = [graph.hosts[i] for i in hosts]
    part = ir.Graph(
        name="local",
        torch="",
        dims=(),
        inputs=tuple(ir.Input(v) for v in inputs),
        constants=(),
        nodes=tuple(reversed(nodes)),
        outputs=(),
        modules=(),
    )
    segment = Segment("", "", "d0", 0, len(nodes))
    names = [v.name for v in graph.fetched]
    built = build(part, segment, [v.name for v in inputs], names)
    program = compile_program(built.program, torch.device("cpu"))
    return LocalProgram(program.bind({}), tuple(hosts))


def _written(node: ir.Node, info: optable.OpInfo) -> list[str]:
    from genie_schemas import args
    from genie_schemas.plan import Op

    op = Op(
        out=[],
        op=node.op,
        args=[args.encode(a) for a in node.args],
        kwargs={k: args.encode(a) for k, a in node.kwargs},
    )
    return mutated_values(op, info)
