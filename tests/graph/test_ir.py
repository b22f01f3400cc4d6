"""The graph: what is legal in it, how it crosses a process, how it reads."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from genie.graph import Body, Graph, Node, Output, Value, check, print_graph
from genie.graph.ir import from_data, graph_digest, to_data
from genie.graph.legality import STAGE_RULES
from genie_schemas.args import Ref
from genie_schemas.errors import InternalError
from genie_schemas.expr import parse
from tests.capture.compiling import compile_module, spec_of
from tests.capture.zoo import DIMS, ZOO


def captured(name: str) -> Graph:
    torch.backends.mha.set_fastpath_enabled(False)
    model, inputs = ZOO[name]()
    graph = compile_module(model.eval(), spec_of(inputs, DIMS.get(name))).work.graph
    assert graph is not None
    return graph


NAMES = ["attention", "special_scalars", "symbolic_shapes", "odd_names", "literal_outputs"]


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_crosses_a_process_unchanged(name: str) -> None:
    graph = captured(name)
    again = from_data(json.loads(json.dumps(to_data(graph))))
    # Not a number is not equal to itself: compare what is written.
    assert to_data(again) == to_data(graph)
    assert graph_digest(again) == graph_digest(graph)
    check(again, "schedule")


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_prints_one_line_for_each_thing(name: str) -> None:
    graph = captured(name)
    lines = print_graph(graph).splitlines()
    calls = [line for line in lines if " = aten." in line]
    assert len(calls) == len(graph.nodes)
    assert sum(line.startswith("  input ") for line in lines) == len(graph.inputs)
    assert sum(line.startswith("  return ") for line in lines) == len(graph.outputs)
    assert " at 0x" not in "\n".join(lines)


def test_how_a_graph_reads() -> None:
    text = print_graph(captured("contiguous_then_written"))
    assert text.splitlines()[3:] == [
        "  # (model)",
        "  t: f32[6,b]{1,0} = aten.t.default(x)",
        "  contiguous: f32[6,b] = aten.contiguous.default(t)",
        "  contiguous.clone: f32[6,b] = aten.clone.default(contiguous)",
        "  _ = aten.add_.Tensor(contiguous.clone, 1)",
        "  return output = contiguous.clone",
    ]


def small() -> Graph:
    return captured("no_parameters")


def appended(graph: Graph, node: Node) -> Graph:
    return dataclasses.replace(graph, nodes=(*graph.nodes, node))


def node(op: str, *args: object, result: str | None = "new") -> Node:
    value = None if result is None else Value(result, "f32[b,6]", 99)
    return Node(op, args, (), (value,), "")  # type: ignore[arg-type]


BROKEN = {
    "single_assignment": lambda g: appended(g, node("aten.relu.default", Ref("x"), result="x")),
    "defined_before_use": lambda g: appended(g, node("aten.relu.default", Ref("nobody"))),
    "allowed_operators": lambda g: appended(g, node("aten.bogus.default", Ref("x"))),
    "known_dimensions": lambda g: appended(g, node("aten.add.Tensor", Ref("x"), parse("q*2"))),
    "bodies_are_closed": lambda g: dataclasses.replace(
        g, bodies=(Body("b", (Value("i", "f32[]", 1),), (), ("i",)),)
    ),
    "mutates_own_values": lambda g: appended(g, node("aten.relu_.default", Ref("x"), result=None)),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_what_breaks_it(rule: str) -> None:
    check(small(), "schedule")
    with pytest.raises(InternalError, match=rule):
        check(BROKEN[rule](small()), "schedule")


def test_outputs_must_be_values() -> None:
    broken = dataclasses.replace(small(), outputs=(Output("y", "nobody"),))
    with pytest.raises(InternalError, match="the output y is no value"):
        check(broken, "capture")


def test_every_rule_has_a_case() -> None:
    assert {rule.__name__ for rules in STAGE_RULES.values() for rule in rules} == set(BROKEN)
