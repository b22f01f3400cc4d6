"""What is legal in the IR after each stage: one readable table, checked between stages.

A violation is a bug of ours, never the user's: it names the stage, the rule and the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from genie.graph.ir import Graph, Node, Value
from genie_schemas import args, optable
from genie_schemas.control import CONTROL
from genie_schemas.errors import InternalError
from genie_schemas.expr import Expr
from genie_schemas.verify.operators import values_in

Rule = Callable[[Graph], Iterator[str]]


def single_assignment(graph: Graph) -> Iterator[str]:
    """Every name is defined once."""
    seen: set[str] = set()
    for value in graph.values():
        if value.name in seen:
            yield f"{value.name} is defined twice"
        seen.add(value.name)


def defined_before_use(graph: Graph) -> Iterator[str]:
    """Nodes read only inputs, constants and earlier results; outputs name values."""
    known = {i.name for i in graph.inputs} | graph.constant_names | graph.state_names
    for node in graph.nodes:
        for name in node.reads():
            if name not in known:
                yield f"{node.op} reads {name} before it is defined"
        known.update(node.writes())
    for output in graph.kept():
        if output.value is not None and output.value not in known:
            yield f"the output {output.name} is no value"


def allowed_operators(graph: Graph) -> Iterator[str]:
    """Every operator is on the allow-list, or control flow over known bodies."""
    bodies = {body.name for body in graph.bodies}
    for node in _all_nodes(graph):
        if node.op in CONTROL:
            leaves = (leaf for arg in node.args for leaf in args.walk(arg))
            called = {leaf.key for leaf in leaves if isinstance(leaf, args.ProgramRef)}
            if not called <= bodies:
                yield f"{node.op} calls {min(called - bodies)}, which is no body"
        elif optable.lookup(node.op) is None:
            yield f"{node.op} is not on the allow-list"


def known_dimensions(graph: Graph) -> Iterator[str]:
    """Expressions use declared dimensions only."""
    dims = {name for name, _, _ in graph.dims}
    for node in _all_nodes(graph):
        for arg in (*node.args, *(v for _, v in node.kwargs)):
            for leaf in args.walk(arg):
                if isinstance(leaf, Expr) and not leaf.names <= dims:
                    yield f"{node.op} uses {leaf.text}"


def bodies_are_closed(graph: Graph) -> Iterator[str]:
    """A body reads what it was given or made, writes only to what it made, and returns that."""
    for body in graph.bodies:
        known = {v.name for v in body.inputs}
        foreign = {v.storage for v in body.inputs}
        for node in body.nodes:
            for name in node.reads():
                if name not in known:
                    yield f"{node.op} in {body.name} reads {name} before it is defined"
            for name in mutated(node):
                if name in known and body.table[name].storage in foreign:
                    yield f"{node.op} in {body.name} writes to what it was given"
            known.update(node.writes())
        for name in body.outputs:
            if name not in known - {v.name for v in body.inputs}:
                yield f"{body.name} returns {name}, which it does not make"


def _all_nodes(graph: Graph) -> Iterator[Node]:
    yield from graph.nodes
    for body in graph.bodies:
        yield from body.nodes


def mutates_own_values(graph: Graph) -> Iterator[str]:
    """No node writes to the memory of an input, a constant, or a state that is replaced."""
    foreign = {v.storage: v.name for v in _outer(graph)}
    table = graph.table
    for node in graph.nodes:
        for name in mutated(node):
            if table[name].storage in foreign:
                yield f"{node.op} writes to {foreign[table[name].storage]}"


def _outer(graph: Graph) -> Iterator[Value]:
    yield from (i.value for i in graph.inputs)
    yield from (c.value for c in graph.constants)
    yield from (s.value for s in graph.states if s.update == "replace")


def mutated(node: Node) -> list[str]:
    """Names of the values that the node writes to, by schema and the table of exceptions."""
    info = optable.lookup(node.op)
    if info is None:
        return []
    bound = _bound(node, info)
    return values_in(bound, info.mutated(bound))


def may_alias(node: Node) -> list[str]:
    """Names of the values whose memory the node's results are, or may be for some sizes."""
    info = optable.lookup(node.op)
    return [] if info is None else values_in(_bound(node, info), info.aliased())


def _bound(node: Node, info: optable.OpInfo) -> dict[str, args.Arg]:
    positional = [a.name for a in info.args if not a.keyword_only]
    return dict(zip(positional, node.args, strict=False)) | dict(node.kwargs)


STAGE_RULES: dict[str, tuple[Rule, ...]] = {
    "capture": (
        single_assignment,
        defined_before_use,
        allowed_operators,
        known_dimensions,
        bodies_are_closed,
    ),
    "schedule": (
        single_assignment,
        defined_before_use,
        allowed_operators,
        known_dimensions,
        bodies_are_closed,
        mutates_own_values,
    ),
}


def check(graph: Graph, stage: str) -> None:
    """Hold the graph to the rules of `stage`; InternalError names the first that it breaks."""
    for rule in STAGE_RULES[stage]:
        for broken in rule(graph):
            raise InternalError(f"the graph is illegal: {broken} ({rule.__name__})", stage=stage)
