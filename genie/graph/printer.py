"""The graph as text: what `genie compile --stop-after capture` shows and snapshots hold."""

from __future__ import annotations

from collections.abc import Iterator

from genie.graph.ir import Graph, Node
from genie_schemas import args
from genie_schemas.args import Arg, Named, ProgramRef, Ref
from genie_schemas.expr import Expr


def print_graph(graph: Graph) -> str:
    """One line a value or call, newline at the end."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {graph.name}"
    for name, low, high in graph.dims:
        yield f"  dim {name} in {low}..{high}"
    for item in graph.inputs:
        yield f"  input {item.name}: {item.value.type}"
    for state in graph.states:
        yield f"  state {state.name}: {state.value.type}, {state.update}"
    for constant in graph.constants:
        tied = "" if constant.key == constant.name else f" = {constant.key}"
        yield f"  {constant.kind} {constant.name}: {constant.value.type}{tied}"
    for body in graph.bodies:
        taken = ", ".join(f"{v.name}: {v.type}" for v in body.inputs)
        yield f"  body {body.name}({taken}) -> {', '.join(body.outputs)}"
        for node in body.nodes:
            yield f"    {_call(node)}"
    module = None
    for node in graph.nodes:
        if node.module != module:
            module = node.module
            yield f"  # {module or '(model)'}"
        yield f"  {_call(node)}"
    for output in graph.outputs:
        shown = output.value if output.value is not None else show(output.literal)
        yield f"  return {output.name} = {shown}"
    for state in graph.states:
        if state.new is not None:
            yield f"  next {state.name} = {state.new}"


def _call(node: Node) -> str:
    results = ", ".join("_" if v is None else f"{v.name}: {v.type}" for v in node.results)
    shown = [show(a) for a in node.args] + [f"{k}={show(v)}" for k, v in node.kwargs]
    return f"{results or '()'} = {node.op}({', '.join(shown)})"


def show(arg: Arg) -> str:
    """One argument, readable: floats in decimal, names bare."""
    if isinstance(arg, tuple):
        return "[" + ", ".join(show(item) for item in arg) + "]"
    if isinstance(arg, Ref):
        return arg.name
    if isinstance(arg, Expr):
        return arg.text
    if isinstance(arg, Named):
        return arg.name
    if isinstance(arg, ProgramRef):
        return f"program {arg.key}"
    if isinstance(arg, str):
        return repr(arg)
    return str(args.encode(arg)) if arg is None else repr(arg)
